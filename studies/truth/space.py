"""The small space: 243 networks for Fashion-MNIST at 14x14, and how all of them train."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import boundnas as bn
from boundnas import elastic
from boundnas.data import ImageData, InMemory
from boundnas.data.image_data import assemble
from boundnas.data.source import Source
from boundnas.fit import identity
from boundnas.models.parts import ConvNorm
from boundnas.space import Setting as Value

Options = Mapping[str, tuple[int, ...]]

OPTIONS: Options = {
    "stem.kernel": (1, 3, 5),
    "early.width": (4, 8, 16),
    "late.width": (12, 24, 48),
    "late.depth": (1, 2, 3),
    "late.kernel": (3, 5, 7),
}
"""Dimensions of unequal worth: the early width counts at 14x14 pixels and costs most, the late one
at 7x7; a kernel of 1 in the stem sees no edges; one of 7 in a late layer is as large as the map."""

STEM = 8

BOUNDARIES: dict[str, dict[str, Any]] = {
    "fixed": {"learn": "none"},
    "clipped": {"learn": "none", "bounds": "from_cost"},
    "learned": {"learn": "both"},
    "learned from the clip": {"learn": "both", "bounds": "from_cost"},
}
"""The supernets, by where their boundaries are."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and how.

    Args:
        data: The images.
        options: The space.
        train: How a network alone trains, and a supernet but for its boundaries.
        lengths: Supernets train so many times as long.
        cost_range: Least and most MACs that networks are wanted for.
        search: How networks are calibrated and measured.
    """

    data: ImageData
    options: Options
    train: bn.TrainSettings
    lengths: tuple[int, ...]
    cost_range: tuple[float, float]
    search: bn.SearchSettings

    @property
    def networks(self) -> list[tuple[int, ...]]:
        """All networks of the space, as an index for each dimension."""
        return list(itertools.product(*(range(len(values)) for values in self.options.values())))

    def values(self, network: tuple[int, ...]) -> dict[str, int]:
        """The options that a network is made of."""
        chosen = zip(self.options.items(), network, strict=True)
        return {name: values[i] for (name, values), i in chosen}

    @property
    def supernets(self) -> Iterator[tuple[str, int]]:
        """Boundaries and length of each, the short ones first."""
        return ((kind, length) for length in self.lengths for kind in BOUNDARIES)

    def model(self, seed: int, network: tuple[int, ...] | None = None) -> Small:
        """The supernet with the initial weights of a seed, or a network that has its own."""
        options = self.options
        if network is not None:
            options = {name: (value,) for name, value in self.values(network).items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Small(self.data.example, options)

    def training(self, kind: str, length: int) -> bn.TrainSettings:
        """How a supernet trains."""
        epochs = length * float(self.train.epochs or 0)
        return bn.TrainSettings(
            **{**self.train.model_dump(exclude_unset=True), "epochs": epochs, **BOUNDARIES[kind]}
        )

    def described(self) -> dict[str, Any]:
        """What numbers depend on."""
        return {
            "options": {name: list(values) for name, values in self.options.items()},
            "train": self.train.model_dump(),
            "search": self.search.model_dump(),
            "cost_range": list(self.cost_range),
            "data": identity.of_data(self.data),
        }


def setting() -> Setting:
    """That of the study: six passes for a network alone, as many and four times as many for a
    supernet.
    """
    return Setting(
        data=small_images(),
        options=OPTIONS,
        train=bn.TrainSettings(epochs=6, batch_size=128, ghost_fraction=1),
        lengths=(1, 4),
        cost_range=(0.25e6, 0.6e6),
        search=bn.SearchSettings(calibration_images=1024),
    )


def small_images(train: int = 10_000, validation: int = 5_000, test: int = 10_000) -> ImageData:
    """Fashion-MNIST at half its size, the first of each split: always the same images."""
    whole = bn.data.fashion_mnist(validation_fraction=1 / 6)
    fewer = halved(whole.train, train)
    return assemble(
        "fashion_mnist-14x14",
        fewer,
        fewer.labels,
        halved(whole.test, test),
        whole.classes,
        validation=halved(whole.validation, validation),
        seed=0,
        padding=0,
        flip=True,
    )


def halved(source: Source, number: int) -> InMemory:
    """The first images of a source, each pixel the mean of 2x2, rounded."""
    images, labels = source.take(torch.arange(number))
    height, width = (side // 2 for side in images.shape[2:])
    parts = images.float().view(number, 1, height, 2, width, 2)
    return InMemory(parts.mean((3, 5)).round().to(torch.uint8), labels)


class Block(nn.Module):
    """A depthwise and a 1x1 convolution beside a shortcut."""

    def __init__(self, width: Value, kernel: Value) -> None:
        super().__init__()
        self.depthwise = ConvNorm(elastic.DepthwiseConv2d(width, kernel), width, "relu")
        self.pointwise = ConvNorm(elastic.Conv2d(width, width), width)

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """The map and what is added to it."""
        return x + self.pointwise(self.depthwise(x, arch), arch)


class Small(bn.Supernet):
    """Two convolutions at full size, one of stride 2, blocks, and a linear layer."""

    def __init__(self, example: Tensor, options: Options) -> None:
        super().__init__(example)
        kernel, early, late, depth, late_kernel = (
            self.dimension(name, options[name], name.split(".")[1]) for name in OPTIONS
        )
        self.stem = ConvNorm(elastic.Conv2d(1, STEM, kernel), STEM, "relu")
        self.early = ConvNorm(elastic.Conv2d(STEM, early, 3), early, "relu")
        self.down = ConvNorm(elastic.Conv2d(early, late, 3, stride=2), late, "relu")
        blocks = (Block(late, late_kernel) for _ in range(max(options["late.depth"])))
        self.blocks = elastic.Stage(blocks, depth)
        self.head = elastic.Linear(late, 10)

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """A logit for each class."""
        x = self.down(self.early(self.stem(x, arch), arch), arch)
        return self.head(self.blocks(x, arch).mean((2, 3)), arch)
