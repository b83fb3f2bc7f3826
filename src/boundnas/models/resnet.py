"""ResNet-like supernets: stages of two convolutions with a shortcut (He et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.models.parts import ConvNorm, Searched, eighths, scaled
from boundnas.space import Architecture, Setting, check_sizes
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked


@dataclass(frozen=True)
class ResNetStage:
    """Choices of one stage.

    Args:
        intermediate: Channels between the two convolutions, searched for every block by itself.
        output: Channels that the blocks give; none stands for those that come in.
        depth: Numbers of blocks.
        stride: Stride of the first block.
    """

    intermediate: tuple[int, ...]
    output: tuple[int, ...] | None = None
    depth: tuple[int, ...] = (1,)
    stride: int = 1


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(
        self, inputs: Setting, mid: Setting, output: Setting, stride: int, drop: float
    ) -> None:
        super().__init__()
        self.first = ConvNorm(elastic.Conv2d(inputs, mid, 3, stride), mid, "relu")
        self.second = ConvNorm(elastic.Conv2d(mid, output, 3), output)
        same = stride == 1 and inputs == output
        shortcut = None if same else elastic.Conv2d(inputs, output, 1, stride)
        self.shortcut = shortcut and ConvNorm(shortcut, output)
        self.drop = elastic.DropConnect(drop)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        y = self.drop(self.second(self.first(x, arch), arch), arch)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x, arch)))


class ResNet(Supernet):
    """A ResNet-like supernet of basic blocks: stem, stages, mean over pixels, classifier.

    Widths inside and between blocks and the depth of every stage are searched.

    Args:
        stem: Choices of the first convolution's output channels.
        stages: Choices of every stage.
        image_size: Height and width of the images. Above 64 pixels the stem is a 7x7 convolution
            and a pooling, of stride 2 each, else a 3x3 convolution of stride 1.
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
        stem: Sequence[int],
        stages: Sequence[ResNetStage],
        image_size: int = 32,
        in_channels: int = 3,
        classes: int = 10,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__((in_channels, image_size, image_size))
        check_sizes("ResNet", classes=classes)
        width = Searched(self, "stem")("width", stem, "width")
        self.large = image_size > 64
        conv = elastic.Conv2d(in_channels, width, *((7, 2) if self.large else (3, 1)))
        self.stem = ConvNorm(conv, width, "relu")
        self.stages = nn.ModuleList()
        blocks = sum(max(s.depth) for s in stages)
        drops = iter([drop_connect * i / max(1, blocks - 1) for i in range(blocks)])
        for number, table in enumerate(stages, 1):
            of_stage = [next(drops) for _ in range(max(table.depth))]
            width, stage = self._stage(f"stage{number}", width, table, of_stage)
            self.stages.append(stage)
        self.dropout = elastic.Dropout(dropout)
        self.classifier = elastic.Linear(width, classes)

    def _stage(
        self, name: str, inputs: Setting, table: ResNetStage, drops: list[float]
    ) -> tuple[Setting, elastic.Stage]:
        searched = Searched(self, name)
        middles = [
            searched(f"layer{i + 1}.width", table.intermediate, "width") for i in range(len(drops))
        ]
        output = inputs if table.output is None else searched("output", table.output, "width")
        depth = searched("depth", table.depth, "depth")
        blocks = [
            _Basic(output if i else inputs, mid, output, 1 if i else table.stride, drop)
            for i, (mid, drop) in enumerate(zip(middles, drops, strict=True))
        ]
        return output, elastic.Stage(blocks, depth)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        x = self.stem(x, arch)
        if self.large:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x, arch)
        return self.classifier(self.dropout(x.mean((2, 3)), arch), arch)


_WIDTHS, _DEPTHS = (64, 128, 256, 512), (3, 4, 6, 3)


def resnet(width: float = 1.0, image_size: int = 32, **options: object) -> ResNet:
    """A space whose largest network is ResNet-34: all widths in eighths, depths from one block.

    Args:
        width: Multiplier of all channel choices.
        image_size: Height and width of the images.
        options: Passed on to `ResNet`: ``in_channels``, ``classes``, ``dropout``,
            ``drop_connect``.

    Examples:
        >>> len(resnet(width=0.125).space.dimensions)
        24
    """
    widths = [scaled(eighths(w), width) for w in _WIDTHS]
    depths = [tuple(range(1, depth + 1)) for depth in _DEPTHS]
    first = ResNetStage(widths[0], depth=depths[0])
    rest = [ResNetStage(w, w, d, 2) for w, d in zip(widths[1:], depths[1:], strict=True)]
    return ResNet(widths[0], [first, *rest], image_size, **options)  # type: ignore[arg-type]
