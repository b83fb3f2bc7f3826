"""Supernets that come with BoundNAS."""

from collections.abc import Callable

from boundnas.models.convnext import ConvNeXt, ConvNeXtStage, convnext
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
from boundnas.models.resnet import ResNet, ResNetStage, resnet, resnet1d
from boundnas.models.transformer import (
    TextTransformer,
    TransformerTable,
    VisionTransformer,
    text_transformer,
    vit,
)
from boundnas.supernet.supernet import Supernet

NETWORKS: dict[str, Callable[..., Supernet]] = {
    "resnet": resnet,
    "convnext": convnext,
    "vit": vit,
}
"""Families for images beside those of the paper: ``(width, image_size, **options)`` to a supernet,
with the options ``in_channels``, ``classes``, ``dropout`` and ``drop_connect``."""

__all__ = [
    "FAMILIES",
    "NETWORKS",
    "ConvNeXt",
    "ConvNeXtStage",
    "MobileNet",
    "ResNet",
    "ResNetStage",
    "StageTable",
    "StemTable",
    "TextTransformer",
    "TransformerTable",
    "VisionTransformer",
    "convnext",
    "mobilenet_v2",
    "mobilenet_v3",
    "paper_space",
    "resnet",
    "resnet1d",
    "text_transformer",
    "vit",
    "width_only",
]
