"""Sections of a configuration: the space, the cost, the data, what is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from boundnas.settings.base import Settings, Values
from boundnas.settings.content import Content, ReadFrom
from boundnas.settings.explain import Location, listed, number, own_error
from boundnas.settings.use import OrUse, Use

_T = TypeVar("_T")


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # Activations ascend as text: relu before swish.
    if len(set(values)) != len(values):
        raise own_error(f"every choice must differ, found {listed(values)}")
    if list(values) != sorted(values):
        raise own_error(f"choices must ascend, found {listed(values)}")
    return values


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise own_error(
            f"a kernel must be odd to have a centre, found {size}; write {size - 1} or {size + 1}"
        )
    return size


def _grey_or_colour(channels: int) -> int:
    if channels == 2:
        raise own_error("images have 1 channel (grey) or 3 (colour), found 2")
    return channels


Choices = Annotated[Values[_T], Field(min_length=1, max_length=64), AfterValidator(_ascending)]
"""The options of one searched dimension, each once and ascending."""

Channels = Annotated[int, Field(ge=1, le=65_536)]
Kernel = Annotated[int, Field(ge=1, le=31), AfterValidator(_odd)]
Activation = Literal["relu", "swish"]


class StemSettings(Settings):
    """The first convolution of a network of your own."""

    width: Choices[Channels] = Field(
        description="choices of output channels, before the multiplier"
    )
    kernel: Choices[Kernel] = Field(default=(3,), description="choices of kernel size in pixels")
    stride: int = Field(ge=1, le=2, description="2 halves the image, 1 keeps its size")


class StageSettings(Settings):
    """One stage of a network of your own: a number of like blocks."""

    intermediate: Choices[Channels] = Field(
        description="choices of channels inside a block, before the multiplier"
    )
    output: Choices[Channels] = Field(
        description="choices of channels a block gives, before the multiplier"
    )
    depth: Choices[Annotated[int, Field(ge=1, le=64)]] = Field(
        default=(1,), description="choices of the number of blocks"
    )
    kernel: Choices[Kernel] = Field(default=(3,), description="choices of kernel size in pixels")
    se: Choices[bool] = Field(
        default=(False,), description="choices of squeeze-and-excitation, off or on"
    )
    activation: Choices[Activation] = Field(
        default=("relu",), description="choices of activation, relu before swish"
    )
    stride: int = Field(ge=1, le=2, description="2 halves the image, 1 keeps its size")


OTHERS = frozenset({"resnet", "convnext", "vit"})
"""Families that are not built of MobileNets' stages."""


class SpaceSettings(Settings):
    """The search space: a family of networks, by its own table or with stages of your own."""

    family: Literal[
        "mobilenet_v2",
        "mobilenet_v3",
        "mobilenet_v3_55",
        "width_only",
        "width_kernel",
        "width_depth",
        "resnet",
        "convnext",
        "vit",
    ] = Field(default="mobilenet_v2", description="family of networks")
    width: float = Field(
        default=1.0, gt=0, le=4, description="multiplier of every number of channels"
    )
    last_width: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="channels before the classifier, not multiplied; left out, 1280 times width",
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="dropout rate before the classifier"
    )
    drop_connect: float = Field(
        default=0.2, ge=0, lt=1, description="rate at which blocks are skipped"
    )
    stem: StemSettings | None = Field(
        default=None, description="first convolution; left out, it is that of the family"
    )
    stages: Annotated[Values[StageSettings], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="stages of blocks in order; left out, they are those of the family",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        family = values.get("family")
        if family not in OTHERS:
            return
        for name in ("last_width", "stem", "stages"):
            if values.get(name) is not None:
                yield (
                    (name,),
                    f"goes with MobileNet-like families only, found {{here}}family: {family}; "
                    "remove it or change the family",
                )


class CostSettings(Settings):
    """The cost range that the networks are made for."""

    metric: Annotated[
        Literal["macs", "parameters", "bytes", "peak_memory", "latency"] | Use, OrUse()
    ] = Field(
        default="macs",
        description="what cost means: multiply-accumulates per image, weights, bytes of the "
        "weights file, bytes of activations at the widest moment for one image, or latency by a "
        "table",
    )
    table: Annotated[Content, ReadFrom("a latency table")] | None = Field(
        default=None,
        description="file of the table that metric: latency is read off, relative to this file",
    )
    lower: float = Field(
        gt=0,
        le=10**9,
        description="cost of the smallest network wanted, in millions; latency in milliseconds",
    )
    upper: float = Field(
        gt=0,
        le=10**9,
        description="cost of the largest network wanted, in millions; latency in milliseconds",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        is_latency, table = values.get("metric") == "latency", values.get("table")
        if is_latency and "table" in values and table is None:
            yield ("table",), "required with {here}metric: latency; give the path of its table"
        if table is not None and "metric" in values and not is_latency:
            yield ("table",), "goes with {here}metric: latency only; remove it or change the metric"
        lower, upper = values.get("lower"), values.get("upper")
        if lower is not None and upper is not None and upper <= lower:
            units = {
                "macs": "MACs",
                "parameters": "parameters",
                "bytes": "bytes",
                "peak_memory": "bytes",
            }
            metric = values.get("metric", "")
            unit = units.get(metric, "") if isinstance(metric, str) else ""
            is_own = not isinstance(metric, str) or ":" in metric
            both = "" if is_own else f" (both in millions{' of ' * bool(unit)}{unit})"
            both = " (both in milliseconds)" if metric == "latency" else both
            yield ("upper",), f"{number(upper)} is not above {{here}}lower = {number(lower)}{both}"


def each_once(costs: tuple[CostSettings, ...]) -> tuple[CostSettings, ...]:
    """Refuse a list of costs that is empty or names one twice."""
    metrics = [cost.metric for cost in costs]
    if not metrics:
        raise own_error("needs at least one entry, found an empty list")
    if any(metric in metrics[:i] for i, metric in enumerate(metrics)):
        named = (metric.use if isinstance(metric, Use) else metric for metric in metrics)
        raise own_error(f"each cost stands once, found {', '.join(named)}")
    return costs


class DataSettings(Settings):
    """The images to train and select on."""

    set: Literal[
        "digits", "fashion_mnist", "cifar10", "cifar100", "imagenet_d", "imagenet", "folder"
    ] = Field(default="digits", description="data set by name, or folder for images of your own")
    folder: str | None = Field(
        default=None,
        pattern=r"^[^\x00-\x1f\x7f]{1,4096}$",
        description="path of a folder with a folder of images per class, or with the published "
        "files of the set",
    )
    image_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="pixels per side that images are scaled to",
    )
    validation_fraction: float = Field(
        default=0.2,
        gt=0,
        le=0.5,
        description="part of the training images kept apart for the search",
    )
    channels: Annotated[int, Field(ge=1, le=3), AfterValidator(_grey_or_colour)] | None = Field(
        default=None, description="3 reads image files in colour, 1 in grey; left out, 3"
    )
    fit: Literal["resize", "pad", "crop"] | None = Field(
        default=None,
        description="what is done to images that are no squares: their sides' ratio is changed, "
        "borders are added, or the middle is taken; left out, resize",
    )
    background: Literal["white", "black", "grey"] | None = Field(
        default=None,
        description="what is put behind transparent parts and at the borders of fit: pad; left "
        "out, white",
    )
    links: Literal["refuse", "follow"] | None = Field(
        default=None,
        description="what is done about symbolic links in the folder; left out, refuse",
    )
    damaged: Literal["refuse", "skip"] | None = Field(
        default=None,
        description="what is done about images that cannot be read; left out, refuse",
    )
    mirror: bool | None = Field(
        default=None,
        description="whether training images are mirrored at random, wrong for letters and signs; "
        "left out, true for all sets but digits",
    )
    shift: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="pixels that training images are shifted by at random at most; left out, an "
        "eighth of the side, 4 for fashion_mnist, and 0 where there are crops",
    )
    smallest_crop: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="random parts of image files are trained on, of so much of the area at least; "
        "left out, 0.08 for imagenet and no such crops for folder",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if "set" not in values:
            return
        files = ("cifar10", "cifar100", "imagenet_d", "imagenet", "folder")
        needers = {"folder": files, "image_size": ("imagenet", "folder")}
        takers: dict[str, tuple[str, ...]] = {
            "folder": ("fashion_mnist", *files),
            "image_size": ("imagenet", "folder"),
            **dict.fromkeys(("links", "damaged", "smallest_crop"), ("imagenet", "folder")),
            **dict.fromkeys(("channels", "fit", "background"), ("folder",)),
        }
        for name in takers:
            if name not in values:
                continue
            missing = values[name] is None
            if missing and values["set"] in needers.get(name, ()):
                about = cls.model_fields[name].description
                yield (name,), f"required with {{here}}set: {values['set']}; give the {about}"
            if not missing and values["set"] not in takers[name]:
                *most, last = takers[name]
                yield (
                    (name,),
                    f"goes with {{here}}set: {', '.join(most)}{' or ' * bool(most)}{last} only, "
                    f"found {{here}}set: {values['set']}; remove it or change the set",
                )


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise own_error(f"name every format once, found {listed(values)}")
    return values


class ExportSettings(Settings):
    """What the networks of the front are written as."""

    formats: Annotated[
        Values[Literal["onnx", "pt2", "int8", "safetensors"]], AfterValidator(_once)
    ] = Field(
        default=("onnx", "pt2"),
        description="file formats, int8 is ONNX in 8 bits, safetensors the weights alone; an empty "
        "list exports nothing",
    )
    latency: bool | None = Field(
        default=None,
        description="whether the written networks are timed on this machine, which no two runs do "
        "with the same result; left out, where the cost is latency",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if values.get("latency") and not values.get("formats", True):
            yield (
                ("latency",),
                "written networks are timed, and {here}formats is empty; name a format, or "
                "remove this key",
            )
