"""What gradient checkpointing asks of a model."""

from __future__ import annotations

from boundnas.elastic import Stage
from boundnas.errors import SpaceError
from boundnas.settings import TrainSettings
from boundnas.supernet.supernet import Supernet


def check_recomputing(settings: TrainSettings, model: Supernet) -> None:
    """Refuse a model of which nothing, or what is not to be, would be computed again.

    Raises:
        SpaceError: It has no stage, or a part of one has forward hooks.
    """
    if not settings.gradient_checkpointing:
        return
    stages = {name: m for name, m in model.named_modules() if isinstance(m, Stage)}
    if not stages:
        raise SpaceError(
            f"train.gradient_checkpointing computes the layers of stages again, and "
            f"{type(model).__name__} has no elastic.Stage; put its blocks into one, of a fixed "
            "depth if need be, or leave the setting out and take train.accumulate"
        )
    for name, stage in stages.items():
        for part, module in stage.named_modules(prefix=name):
            if part != name and (module._forward_hooks or module._forward_pre_hooks):
                raise SpaceError(
                    f"{part} ({type(module).__name__}) has forward hooks, which "
                    "train.gradient_checkpointing would call a second time; remove them, or leave "
                    "the setting out"
                )
