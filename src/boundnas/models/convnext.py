"""ConvNeXt-like supernets: depthwise convolutions and perceptrons (Liu et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.models.parts import Searched, eighths, rising, scaled
from boundnas.space import Architecture, Setting, check_sizes
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked


@dataclass(frozen=True)
class ConvNeXtStage:
    """Choices of one stage.

    Args:
        width: Channels of its maps.
        hidden: Channels inside a block's perceptron, searched for every block by itself.
        depth: Numbers of blocks.
        kernel: Sizes of the depthwise kernels.
    """

    width: tuple[int, ...]
    hidden: tuple[int, ...]
    depth: tuple[int, ...] = (1,)
    kernel: tuple[int, ...] = (7,)


class _Norm(nn.Module):
    """A normalization over the channels of every pixel of a map ``(N, C, H, W)``."""

    def __init__(self, width: Setting) -> None:
        super().__init__()
        self.norm = elastic.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1), arch).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A depthwise convolution and a perceptron of every pixel, scaled, beside a shortcut."""

    def __init__(self, width: Setting, hidden: Setting, kernel: Setting, drop: float) -> None:
        super().__init__()
        self.depthwise = elastic.DepthwiseConv2d(width, kernel, bias=True)
        self.norm = elastic.LayerNorm(width, eps=1e-6)
        self.expand = elastic.Linear(width, hidden)
        self.project = elastic.Linear(hidden, width)
        self.scale = elastic.Parameter((width, 1, 1), mean=SCALE, std=0.0)
        self.drop = elastic.DropConnect(drop)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        y = self.norm(self.depthwise(x, arch).permute(0, 2, 3, 1), arch)
        y = self.project(F.gelu(self.expand(y, arch)), arch).permute(0, 3, 1, 2)
        return x + self.drop(y * self.scale(y, arch), arch)


class ConvNeXt(Supernet):
    """A ConvNeXt-like supernet: patches, stages with a halving between them, classifier.

    Widths of the maps and inside the blocks, depthwise kernels and depths are searched.

    Args:
        stages: Choices of every stage.
        image_size: Height and width of the images. Above 64 pixels the first convolution is of 4x4
            pixels, each seen once, else of 2x2.
        in_channels: Channels of the images.
        classes: Number of classes.
        dropout: Probability before the classifier, on the max network.
        drop_connect: Probability at the last block, rising linearly from the first; on the max
            network.

    Shape:
        ``(N, in_channels, image_size, image_size)`` to logits ``(N, classes)``.
    """

    @checked
    def __init__(
        self,
        stages: Sequence[ConvNeXtStage],
        image_size: int = 32,
        in_channels: int = 3,
        classes: int = 10,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__((in_channels, image_size, image_size))
        check_sizes("ConvNeXt", classes=classes, stages=len(stages))
        drops = iter(rising(drop_connect, sum(max(s.depth) for s in stages)))
        self.halvings, self.norms, self.stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width: Setting = in_channels
        for number, table in enumerate(stages, 1):
            searched, inputs = Searched(self, f"stage{number}"), width
            width = searched("width", table.width, "width")
            patch = 4 if number == 1 and image_size > 64 else 2
            self.halvings.append(elastic.Conv2d(inputs, width, patch, patch, padding=0, bias=True))
            self.norms.append(_Norm(width if number == 1 else inputs))
            self.stages.append(_stage(searched, width, table, drops))
        self.norm, self.dropout = elastic.LayerNorm(width, eps=1e-6), elastic.Dropout(dropout)
        self.classifier = elastic.Linear(width, classes)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        for i, (halving, norm, stage) in enumerate(
            zip(self.halvings, self.norms, self.stages, strict=True)
        ):
            x = halving(norm(x, arch), arch) if i else norm(halving(x, arch), arch)
            x = stage(x, arch)
        x = self.norm(x.mean((2, 3)), arch)
        return self.classifier(self.dropout(x, arch), arch)


def _stage(
    searched: Searched, width: Setting, table: ConvNeXtStage, drops: Iterator[float]
) -> elastic.Stage:
    """The blocks of a stage, whose dimensions come after its width."""
    kernel = searched("kernel", table.kernel, "kernel")
    blocks = [
        _Block(width, searched(f"layer{i}.hidden", table.hidden, "width"), kernel, next(drops))
        for i in range(1, max(table.depth) + 1)
    ]
    return elastic.Stage(blocks, searched("depth", table.depth, "depth"))


SCALE = 1e-6
"""What the blocks' scales start at (Liu et al., App. A.1)."""

_WIDTHS, _DEPTHS = (96, 192, 384, 768), (3, 3, 9, 3)


@checked
def convnext(width: float = 1.0, image_size: int = 32, **options: object) -> ConvNeXt:
    """A space whose largest network is ConvNeXt-T: widths in eighths, kernels of 3 to 7, depths.

    Args:
        width: Multiplier of all channel choices.
        image_size: Height and width of the images.
        options: Passed on to `ConvNeXt`: ``in_channels``, ``classes``, ``dropout``,
            ``drop_connect``.

    Examples:
        >>> len(convnext(width=0.125).space.dimensions)
        30
    """
    stages = [
        ConvNeXtStage(
            scaled(eighths(w), width), scaled(eighths(4 * w), width), tuple(range(1, depth + 1)),
            (3, 5, 7),
        )
        for w, depth in zip(_WIDTHS, _DEPTHS, strict=True)
    ]  # fmt: skip
    return ConvNeXt(stages, image_size, **options)  # type: ignore[arg-type]
