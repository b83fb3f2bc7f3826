"""MobileNet-like supernets: the spaces of Tables 1 and 2, of Sec. 4.1 and of Fig. 2 (App. A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from boundnas import elastic
from boundnas.errors import SpaceError
from boundnas.models.parts import ConvNorm, Searched, eighths, rising, scaled
from boundnas.space import Architecture, Setting, check_sizes
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked


@dataclass(frozen=True)
class StemTable:
    """Choices of the first convolution (the paper's head).

    Args:
        width: Output channels, ascending.
        kernel: Kernel sizes, ascending.
        stride: Stride.
    """

    width: tuple[int, ...]
    kernel: tuple[int, ...] = (3,)
    stride: int = 1


@dataclass(frozen=True)
class StageTable:
    """Choices of one stage of inverted residual layers: a row of Tables 1 and 2.

    Args:
        intermediate: Expanded channels, searched for every layer by itself.
        output: Output channels.
        depth: Numbers of layers.
        kernel: Depthwise kernel sizes.
        se: Whether to squeeze and excite.
        activation: Activation functions.
        stride: Stride of the first layer.
    """

    intermediate: tuple[int, ...]
    output: tuple[int, ...]
    depth: tuple[int, ...] = (1,)
    kernel: tuple[int, ...] = (3,)
    se: tuple[bool, ...] = (False,)
    activation: tuple[str, ...] = ("relu",)
    stride: int = 1


_INTERMEDIATES = (96, 144, 144, 384, 576, 960, 1920)
_OUTPUTS = (16, 24, 24, 64, 96, 160, 320)
_SEARCHED_DEPTHS = ((1,), *[(1, 2, 3, 4)] * 5, (1,))
_FIXED_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
_SMALL_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)
_LARGE_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class _Family:
    """What a space of the paper searches beside widths.

    Args:
        kernel: Whether kernels of 3 and 5 pixels are a choice, else 3.
        depth: Whether Blocks 2 to 6 have 1 to 4 layers, else depths are those of MobileNetV2.
        extra_blocks: So many blocks, from the first, also choose SE and activation.
    """

    kernel: bool = False
    depth: bool = False
    extra_blocks: int = 0


FAMILIES = {
    "mobilenet_v2": _Family(kernel=True, depth=True),
    "mobilenet_v3": _Family(kernel=True, depth=True, extra_blocks=7),
    "mobilenet_v3_55": _Family(kernel=True, depth=True, extra_blocks=6),
    "width_only": _Family(),
    "width_kernel": _Family(kernel=True),
    "width_depth": _Family(depth=True),
}
"""The paper's spaces: Table 1 (W+K+D in Fig. 2), Table 2, Table 2 as Sec. 4.2 describes it (without
SE and activation in Block 7), Sec. 4.1 (W), and W+K and W+D of Fig. 2."""


class _InvertedResidual(nn.Module):
    """Expand, filter depthwise, squeeze and excite, project; residual where shapes allow."""

    def __init__(
        self, inputs: Setting, mid: Setting, output: Setting, kernel: Setting, stride: int,
        se: Setting, activation: Setting, residual: bool, drop_connect: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.expand = ConvNorm(elastic.Conv2d(inputs, mid), mid, activation)
        conv = elastic.DepthwiseConv2d(mid, kernel, stride)
        self.depthwise = ConvNorm(conv, mid, activation)
        self.se = None if se is False else elastic.SqueezeExcite(mid, se)
        self.project = ConvNorm(elastic.Conv2d(mid, output), output)
        self.drop = elastic.DropConnect(drop_connect) if residual else None

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        y = self.depthwise(self.expand(x, arch), arch)
        if self.se is not None:
            y = self.se(y, arch)
        y = self.project(y, arch)
        return y if self.drop is None else x + self.drop(y, arch)


class MobileNet(Supernet):
    """A MobileNet-like supernet: stem, stages of inverted residual layers, 1x1 convolution, head.

    Args:
        stem: Choices of the first convolution.
        stages: Choices of every stage.
        last_width: Channels of the last 1x1 convolution.
        image_size: Height and width of the images.
        in_channels: Channels of the images.
        classes: Number of classes.
        dropout: Probability before the classifier, on the max network.
        drop_connect: Probability at the last residual layer, rising linearly from the first; on
            the max network.

    Shape:
        ``(N, in_channels, image_size, image_size)`` to logits ``(N, classes)``.
    """

    @checked
    def __init__(
        self,
        stem: StemTable,
        stages: Sequence[StageTable],
        last_width: int = 1280,
        image_size: int = 32,
        in_channels: int = 3,
        classes: int = 10,
        dropout: float = 0.2,
        drop_connect: float = 0.2,
    ) -> None:
        super().__init__((in_channels, image_size, image_size))
        check_sizes("MobileNet", last_width=last_width, classes=classes)
        searched = Searched(self, "stem")
        width = searched("width", stem.width, "width")
        kernel = searched("kernel", stem.kernel, "kernel")
        conv = elastic.Conv2d(in_channels, width, kernel, stem.stride)
        self.stem = ConvNorm(conv, width, "relu")
        self.stages = nn.ModuleList()
        drops = iter(rising(drop_connect, sum(max(s.depth) for s in stages)))
        for number, table in enumerate(stages, 1):
            of_stage = [next(drops) for _ in range(max(table.depth))]
            width, stage = self._stage(f"stage{number}", width, table, of_stage)
            self.stages.append(stage)
        self.last = ConvNorm(elastic.Conv2d(width, last_width), last_width, "relu")
        self.dropout = elastic.Dropout(dropout)
        self.classifier = elastic.Linear(last_width, classes)

    def _stage(
        self, name: str, inputs: Setting, table: StageTable, drops: list[float]
    ) -> tuple[Setting, elastic.Stage]:
        searched = Searched(self, name)
        middles = [
            searched(f"layer{i + 1}.width", table.intermediate, "width") for i in range(len(drops))
        ]
        output = searched("output", table.output, "width")
        depth = searched("depth", table.depth, "depth")
        kernel = searched("kernel", table.kernel, "kernel")
        se = searched("se", table.se, "se")
        activation = searched("activation", table.activation, "activation")
        layers = [
            _InvertedResidual(
                output if i else inputs, middle, output, kernel, 1 if i else table.stride,
                se, activation, residual=i > 0, drop_connect=drop,
            )
            for i, (middle, drop) in enumerate(zip(middles, drops, strict=True))
        ]  # fmt: skip
        return output, elastic.Stage(layers, depth)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        x = self.stem(x, arch)
        for stage in self.stages:
            x = stage(x, arch)
        x = self.last(x, arch).mean((2, 3))
        return self.classifier(self.dropout(x, arch), arch)


def tables(
    family: str, width: float = 1.0, image_size: int = 32
) -> tuple[StemTable, tuple[StageTable, ...]]:
    """The paper's tables, with all channel choices scaled by ``width``.

    Args:
        family: A name in `FAMILIES`.
        width: Width multiplier.
        image_size: Above 64 pixels the strides are those for ImageNet, else those for CIFAR.

    Raises:
        SpaceError: An unknown family.
    """
    if family not in FAMILIES:
        raise SpaceError(f"unknown family {family!r}; allowed are {', '.join(FAMILIES)}")
    searched = FAMILIES[family]
    strides = _LARGE_STRIDES if image_size > 64 else _SMALL_STRIDES
    kernel = (3, 5) if searched.kernel else (3,)
    depths = _SEARCHED_DEPTHS if searched.depth else [(d,) for d in _FIXED_DEPTHS]
    # Tables 1 and 2 list 24-144 where an eighth of 144 is 18; Sec. 4.1 has eighths throughout.
    middles = [
        (24, *eighths(w)[1:]) if w == 144 and family != "width_only" else eighths(w)
        for w in _INTERMEDIATES
    ]
    stem = StemTable(scaled(eighths(32), width), kernel, strides[0])
    stages = [
        StageTable(
            scaled(intermediate, width), scaled(eighths(output), width), depth, kernel,
            stride=stride,
        )
        for intermediate, output, depth, stride in zip(
            middles, _OUTPUTS, depths, strides[1:], strict=True
        )
    ]  # fmt: skip
    for i in range(searched.extra_blocks):
        stages[i] = replace(stages[i], se=(False, True), activation=("relu", "swish"))
    return stem, tuple(stages)


@checked
def paper_space(
    family: str,
    width: float = 1.0,
    image_size: int = 32,
    last_width: int | None = None,
    **options: object,
) -> MobileNet:
    """A supernet over one of the paper's spaces.

    Args:
        family: A name in `FAMILIES`.
        width: Multiplier of all channel choices.
        image_size: Height and width of the images.
        last_width: Channels of the last 1x1 convolution; ``1280 * width`` by default.
        options: Passed on to `MobileNet`: ``in_channels``, ``classes``, ``dropout``,
            ``drop_connect``.

    Raises:
        SpaceError: An unknown family.

    Examples:
        >>> len(paper_space("width_depth", width=0.125).space.dimensions)
        35
    """
    stem, stages = tables(family, width, image_size)
    last = scaled((1280,), width)[0] if last_width is None else last_width
    return MobileNet(stem, stages, last, image_size, **options)  # type: ignore[arg-type]


@checked
def mobilenet_v2(
    width: float = 1.0, image_size: int = 32, last_width: int | None = None, **options: object
) -> MobileNet:
    """The MobileNetV2-like space of Table 1 (43 dimensions at width 1); see `paper_space`."""
    return paper_space("mobilenet_v2", width, image_size, last_width, **options)


@checked
def mobilenet_v3(
    width: float = 1.0, image_size: int = 32, last_width: int | None = None, **options: object
) -> MobileNet:
    """The MobileNetV3-like space of Table 2 (57 dimensions at width 1); see `paper_space`."""
    return paper_space("mobilenet_v3", width, image_size, last_width, **options)


@checked
def width_only(
    width: float = 1.0, image_size: int = 32, last_width: int | None = None, **options: object
) -> MobileNet:
    """The width-only space of Sec. 4.1 (25 dimensions at width 1); see `paper_space`."""
    return paper_space("width_only", width, image_size, last_width, **options)
