"""How a batch of samples is handed to a model."""

from __future__ import annotations

from boundnas.data.data import Data
from boundnas.data.image_data import ImageData
from boundnas.guard.layout import laid_out
from boundnas.nested import Inputs
from boundnas.supernet.supernet import Supernet


def handed(model: Supernet, data: ImageData | Data, inputs: Inputs) -> Inputs:
    """A batch as a model takes it: prepared, on its device, in the layout that serves it best.

    Args:
        model: Takes it.
        data: What it is a batch of.
        inputs: As a split of the data gives them, with the batch axis first.
    """
    return laid_out(model, data.ready(inputs, next(model.parameters()).device))
