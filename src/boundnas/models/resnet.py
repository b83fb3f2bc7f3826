"""ResNet-like supernets: stages of two convolutions with a shortcut (He et al., CVPR 2016).

Of images, and of sequences, as in Wang et al., IJCNN 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.models.parts import ConvNorm, Searched, eighths, rising, scaled
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
        kernel: Kernel sizes, of both convolutions of every block.
        stride: Stride of the first block.
    """

    intermediate: tuple[int, ...]
    output: tuple[int, ...] | None = None
    depth: tuple[int, ...] = (1,)
    kernel: tuple[int, ...] = (3,)
    stride: int = 1


class _Basic(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(
        self, conv: type[elastic.Convolution], inputs: Setting, mid: Setting, output: Setting,
        kernel: Setting, stride: int, drop: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = ConvNorm(conv(inputs, mid, kernel, stride), mid, "relu")
        self.second = ConvNorm(conv(mid, output, kernel), output)
        same = stride == 1 and inputs == output
        shortcut = None if same else conv(inputs, output, 1, stride)
        self.shortcut = shortcut and ConvNorm(shortcut, output)
        self.drop = elastic.DropConnect(drop)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        y = self.drop(self.second(self.first(x, arch), arch), arch)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x, arch)))


class ResNet(Supernet):
    """A ResNet-like supernet of basic blocks: stem, stages, mean over pixels, classifier.

    Widths inside and between blocks, the kernels and the depth of every stage are searched.

    Args:
        stem: Choices of the first convolution's output channels.
        stages: Choices of every stage.
        input_shape: Channels and size of a sample: a sequence ``(C, L)``, an image ``(C, H, W)``
            or a volume ``(C, D, H, W)``.
        stem_kernel: Size of the first convolution.
        stem_stride: Its stride; where that is 2, a pooling of stride 2 follows.
        classes: Number of classes.
        dropout: Probability before the classifier, on the max network.
        drop_connect: Probability at the last block, rising linearly from the first; on the max
            network.

    Shape:
        ``(N, *input_shape)`` to logits ``(N, classes)``.
    """

    @checked
    def __init__(
        self,
        stem: Sequence[int],
        stages: Sequence[ResNetStage],
        input_shape: Sequence[int] = (3, 32, 32),
        stem_kernel: int = 3,
        stem_stride: int = 1,
        classes: int = 10,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__(input_shape)
        check_sizes("ResNet", classes=classes, axes=len(input_shape) - 1)
        self.conv, self.pool = _CONVOLUTIONS[len(input_shape) - 1]
        width = Searched(self, "stem")("width", stem, "width")
        conv = self.conv(input_shape[0], width, stem_kernel, stem_stride)
        self.stem, self.pools = ConvNorm(conv, width, "relu"), stem_stride > 1
        self.stages = nn.ModuleList()
        drops = iter(rising(drop_connect, sum(max(s.depth) for s in stages)))
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
        kernel = searched("kernel", table.kernel, "kernel")
        blocks = [
            _Basic(
                self.conv, output if i else inputs, mid, output, kernel,
                1 if i else table.stride, drop,
            )
            for i, (mid, drop) in enumerate(zip(middles, drops, strict=True))
        ]  # fmt: skip
        return output, elastic.Stage(blocks, depth)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        x = self.stem(x, arch)
        if self.pools:
            x = self.pool(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x, arch)
        x = x.flatten(2).mean(2)
        return self.classifier(self.dropout(x, arch), arch)


_CONVOLUTIONS: dict[int, tuple[type[elastic.Convolution], Callable[..., Tensor]]] = {
    1: (elastic.Conv1d, F.max_pool1d),
    2: (elastic.Conv2d, F.max_pool2d),
    3: (elastic.Conv3d, F.max_pool3d),
}
"""By the number of spatial axes."""

_WIDTHS, _DEPTHS = (64, 128, 256, 512), (3, 4, 6, 3)


@checked
def resnet(
    width: float = 1.0, image_size: int = 32, in_channels: int = 3, **options: object
) -> ResNet:
    """A space whose largest network is ResNet-34: all widths in eighths, depths from one block.

    Args:
        width: Multiplier of all channel choices.
        image_size: Height and width of the images; up to 64 pixels the first convolution is of 3x3
            pixels and no pooling follows, as is usual for CIFAR.
        in_channels: Channels of the images.
        options: Passed on to `ResNet`: ``classes``, ``dropout``, ``drop_connect``.

    Examples:
        >>> len(resnet(width=0.125).space.dimensions)
        24
    """
    widths = [scaled(eighths(w), width) for w in _WIDTHS]
    depths = [tuple(range(1, depth + 1)) for depth in _DEPTHS]
    first = ResNetStage(widths[0], depth=depths[0])
    rest = [ResNetStage(w, w, d, stride=2) for w, d in zip(widths[1:], depths[1:], strict=True)]
    stem, shape = (7, 2) if image_size > 64 else (3, 1), (in_channels, image_size, image_size)
    return ResNet(widths[0], [first, *rest], shape, *stem, **options)  # type: ignore[arg-type]


@checked
def resnet1d(
    width: float = 1.0, length: int = 128, in_channels: int = 1, **options: object
) -> ResNet:
    """A space of networks for sequences: three stages of up to three blocks, kernels of 3 to 7.

    Args:
        width: Multiplier of all channel choices; at 1 they are eighths of 64, 128 and 128.
        length: Positions of a sequence.
        in_channels: Channels at every position.
        options: Passed on to `ResNet`: ``classes``, ``dropout``, ``drop_connect``.

    Shape:
        ``(N, in_channels, length)`` to logits ``(N, classes)``.

    Examples:
        >>> len(resnet1d(width=0.25, length=40).space.dimensions)
        18
    """
    first, *others = (scaled(eighths(w), width) for w in (64, 128, 128))
    depth, kernel = (1, 2, 3), (3, 5, 7)
    stages = [ResNetStage(w, w, depth, kernel, stride=2) for w in others]
    shape = (in_channels, length)
    stages.insert(0, ResNetStage(first, None, depth, kernel))
    return ResNet(first, stages, shape, 7, **options)  # type: ignore[arg-type]
