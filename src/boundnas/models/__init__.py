"""Supernets that come with BoundNAS."""

from boundnas.models.mobilenet import (
    FAMILIES,
    MobileNet,
    StageTable,
    StemTable,
    mobilenet_v2,
    mobilenet_v3,
    paper_space,
    width_only,
)

__all__ = [
    "FAMILIES",
    "MobileNet",
    "StageTable",
    "StemTable",
    "mobilenet_v2",
    "mobilenet_v3",
    "paper_space",
    "width_only",
]
