"""Training and evaluation mode of a model whose modules may have been frozen one by one.

``module.eval()`` on a part of a model that trains is how PyTorch's users freeze it. What puts the
whole model into another mode for a while gives every module its own mode back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from boundnas.supernet.supernet import Supernet


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Evaluation mode within it; then every module is in the mode it was in before."""
    return _in_mode(model, training=False)


def training(model: nn.Module) -> AbstractContextManager[None]:
    """Training mode within it, of what was frozen too; then every module is as before."""
    return _in_mode(model, training=True)


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before


def train(model: Supernet) -> None:
    """Training mode, but not for what was frozen when the model last trained.

    A model in training mode is left alone.
    """
    if model.training:
        return
    model.train()
    for name, module in model.named_modules():
        if name in model.frozen:
            module.training = False


def evaluate(model: Supernet) -> None:
    """Evaluation mode for good; `train` finds again what was frozen."""
    if model.training:
        names = (name for name, module in model.named_modules() if not module.training)
        model.frozen = frozenset(names)
    model.eval()
