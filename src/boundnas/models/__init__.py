"""Supernets that come with BoundNAS."""

from boundnas.models.mobilenet import (
    MobileNet,
    StageTable,
    StemTable,
    mobilenet_v2,
    mobilenet_v3,
    width_only,
)

__all__ = ["MobileNet", "StageTable", "StemTable", "mobilenet_v2", "mobilenet_v3", "width_only"]
