"""Networks, transforms and metrics that nobody here wrote: torchvision, timm, torchmetrics.

They come with the development environment; the package itself never needs them.
"""

import importlib
import warnings
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

ON_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = {"nms": ON_BOXES, "qnms": ON_BOXES} | {
    name: "(Tensor input) -> Tensor"
    for op in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    for name in (op, f"_{op}_backward")
}


def foreign(name: str) -> ModuleType:
    """A module of another library, as ``foreign("torchvision.transforms.v2")``."""
    _define_operators()
    with warnings.catch_warnings():  # those of their imports are not ours to mend
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@cache
def _define_operators() -> torch.library.Library | None:
    """Name torchvision's compiled operators, without which it does not import.

    Its wheel is built for CUDA, so beside the CPU build of torch they cannot be loaded. What is
    pure Python, as all its networks for classes and segmentation and its transforms are, needs
    no more than their names. torchmetrics and timm import torchvision.
    """
    for folder in find_spec("torchvision").submodule_search_locations:
        for file in Path(folder).glob("_C*.so"):
            with suppress(OSError):
                torch.ops.load_library(file)
                return None
    library = torch.library.Library("torchvision", "DEF")
    for name, schema in OPERATORS.items():
        library.define(name + schema)
    return library
