"""Data and supernet of a configuration: of sets and families that come along, or of one's own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from boundnas.app.own import Own
from boundnas.config import RunConfig
from boundnas.convert import elasticize
from boundnas.data import Samples, load
from boundnas.errors import DataError
from boundnas.models import NETWORKS, MobileNet, StageTable, StemTable
from boundnas.models.mobilenet import tables
from boundnas.models.parts import scaled
from boundnas.nested import described, mapped
from boundnas.settings import SpaceSettings, Use, uses
from boundnas.supernet.supernet import Supernet


def made(config: RunConfig) -> tuple[Own, Samples, Supernet]:
    """What a configuration names, its data, and its supernet with initial weights.

    Draws from torch's global generator, which the configuration's seed is put into.
    """
    own = Own(uses(config))
    torch.manual_seed(config.seed)
    data = _data(config, own)
    torch.manual_seed(config.seed)
    return own, data, network(config, own, data)


def _data(config: RunConfig, own: Own) -> Samples:
    """The data of a configuration."""
    d = config.data
    if isinstance(d, Use):
        data: Samples = own.made("data", seed=config.seed)
        return data
    return load(d.set, seed=config.seed, **{k: v for k, v in dict(d).items() if k != "set"})


def network(config: RunConfig, own: Own, data: Samples) -> Supernet:
    """The supernet of a configuration, with initial weights.

    Args:
        config: The configuration.
        own: What it names.
        data: What it is built for.

    Raises:
        ConvertError: A network of one's own cannot be made elastic.
        DataError: The data are none that a family of ours takes.
    """
    if not isinstance(config.space, Use):
        return build(config.space, *_images(data))
    net: nn.Module = own.made("space", seed=config.seed, data=data, example=data.example)
    if isinstance(net, Supernet):
        return net
    return elasticize(net, mapped(lambda x: x[None], data.example))


def _images(data: Samples) -> tuple[tuple[int, int, int], int]:
    """Shape of the images, and number of the classes."""
    example = data.example
    is_image = isinstance(example, Tensor) and example.is_floating_point()
    shape = tuple(example.shape) if is_image else ()
    if len(shape) != 3 or shape[1] != shape[2] or data.classes is None:
        raise DataError(
            f"{data.name}: a family that comes along takes square images of named classes, found "
            f"{described(example)}, {'no' if data.classes is None else len(data.classes)} classes; "
            "name a network of your own by space: FILE.py:NAME, or give boundnas.Data classes="
        )
    return (shape[0], shape[1], shape[2]), len(data.classes)


def build(space: SpaceSettings, shape: tuple[int, int, int], classes: int) -> Supernet:
    """The supernet of a configuration for images of a shape ``(C, H, W)``."""
    channels, height, _ = shape
    if space.family in NETWORKS:
        return NETWORKS[space.family](
            space.width, height, in_channels=channels, classes=classes, dropout=space.dropout,
            drop_connect=space.drop_connect,
        )  # fmt: skip
    stem, stages = tables(space.family, space.width, height)
    if space.stem is not None:
        own = StemTable(**dict(space.stem))
        stem = replace(own, width=scaled(own.width, space.width))
    if space.stages is not None:
        stages = tuple(
            replace(
                own,
                intermediate=scaled(own.intermediate, space.width),
                output=scaled(own.output, space.width),
            )
            for own in (StageTable(**dict(s)) for s in space.stages)
        )
    last = space.last_width or scaled((1280,), space.width)[0]
    return MobileNet(
        stem, stages, last, height, channels, classes, space.dropout, space.drop_connect
    )
