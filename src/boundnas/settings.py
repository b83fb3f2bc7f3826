"""What can be set: frozen, typed, range-checked, with faults explained in the user's words.

The same classes serve a Python caller (``TrainSettings(steps=1000)``) and the sections of a
configuration file. Every field has a range and a description, and the message about a bad value
is made from those two, so it cannot disagree with what is checked.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from boundnas.errors import ConfigError

Location = tuple[str | int, ...]
"""Keys and list positions from the outermost settings down to a value."""

MAX_PROBLEMS = 100
"""So many are listed in one message; the rest is counted."""

_OWN = "boundnas"
"""The type of the errors raised here, whose text is already in the user's words."""


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no conversion of text or switches to numbers.

    Raises:
        ConfigError: Unknown keys, missing keys, values of the wrong type or outside their range,
            values that contradict each other; lists all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            rows = [
                (dotted(detail["loc"]), explain(type(self), detail))
                for detail in error.errors(include_url=False)
            ]
            raise ConfigError(problem_list(type(self).__name__, rows)) from None

    _retired: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Keys of earlier releases, with the value at which they changed nothing, which is read."""

    # Settings inside settings are then validated without this constructor, as plain models are,
    # so that their faults join those of the whole instead of ending the validation.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Check the fields against each other even where some of them are faulty themselves."""
        settings, faults = None, []
        if isinstance(given, Mapping):
            retired = cls._retired
            given = {k: v for k, v in given.items() if k not in retired or v != retired[k]}
        try:
            settings = build(given)
        except ValidationError as error:
            faults = [_again(detail) for detail in error.errors(include_url=False)]
        if isinstance(given, Mapping):
            faulty = {str(fault["loc"][0]) for fault in faults if fault.get("loc")}
            known = {
                name: given.get(name, None if field.is_required() else field.default)
                for name, field in cls.model_fields.items()
                if name not in faulty
            }
            faults += [_fault(loc, text) for loc, text in cls._conflicts(known)]
        if faults or settings is None:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return settings

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        """Faults between fields; ``values`` holds the fields that have no fault of their own.

        ``{here}`` in a text stands for the place of these settings, such as ``cost.``.
        """
        yield from ()


def _as_tuple(value: object) -> object:
    """A list as a tuple: strict validation takes no list where a frozen field holds a tuple."""
    return tuple(value) if isinstance(value, list) else value


_T = TypeVar("_T")
_Values = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]


class PriorSettings(Settings):
    """Where the learned boundaries of some dimensions start, from what is known beforehand."""

    dimensions: str = Field(
        pattern=r"^[A-Za-z0-9._*?-]{1,100}$",
        description="name of dimensions, without blanks, * for any part of it: stage*.kernel",
    )
    smallest: float | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="the min policy starts at the smallest option from here on; text and switches "
        "count from 0",
    )
    largest: float | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="the max policy starts at the largest option up to here",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if not {"smallest", "largest"} <= values.keys():
            return
        smallest, largest = values["smallest"], values["largest"]
        if smallest is None and largest is None:
            yield (), "needs {here}smallest or {here}largest, found neither; write at least one"
        if smallest is not None and largest is not None and largest < smallest:
            yield (
                ("largest",),
                f"{_number(largest)} is below {{here}}smallest = {_number(smallest)}",
            )


class TrainSettings(Settings):
    """How the supernet and its boundary policies are trained (Algorithm 1)."""

    steps: int | None = Field(
        default=None, ge=1, le=10**9, description="training steps; give this or epochs"
    )
    epochs: float | None = Field(
        default=None, gt=0, le=10**6, description="passes over the training set; give this or steps"
    )
    batch_size: int = Field(default=64, ge=2, le=65_536, description="images per training step")
    learning_rate: float = Field(
        default=0.1, gt=0, le=100, description="SGD step size of the weights at the end of warm-up"
    )
    warmup_start: float = Field(
        default=1e-5, ge=0, le=100, description="learning rate that the linear warm-up starts from"
    )
    warmup_fraction: float = Field(
        default=5 / 120,
        ge=0,
        lt=1,
        description="part of the run spent warming up, before cosine decay",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD momentum of the weights")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 penalty on the weights")
    clip_value: float | None = Field(
        default=1.0,
        gt=0,
        le=10**6,
        description="where gradients of weights and policies are cut off, null for no limit",
    )
    learn: Literal["both", "min", "max", "none"] = Field(
        default="both",
        description="which boundaries of the space are learned, none is the sandwich rule",
    )
    grad_from_random: bool = Field(
        default=False,
        description="whether random networks teach the policies too, as in Appendix C",
    )
    random_networks: int = Field(
        default=2,
        ge=0,
        le=64,
        description="random sub-networks per step, beside the max and the min one",
    )
    random_choice: Literal["uniform", "best_up", "worst_up"] = Field(
        default="uniform",
        description="how random networks are drawn, best_up and worst_up are AttentiveNAS': that "
        "of least or most loss on the labels of the batch among some of like cost",
    )
    candidates: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="networks of like cost that best_up and worst_up choose from",
    )
    distillation: Literal["kl", "adaptive_alpha"] = Field(
        default="kl",
        description="distance of a student to the max network, adaptive_alpha is AlphaNet's",
    )
    conflict: Literal["sum", "project"] = Field(
        default="sum",
        description="the max network's gradient is added as it is, or without what opposes its "
        "students', as in NASViT",
    )
    penalty_weight: float = Field(
        default=5.0,
        ge=0,
        le=10**6,
        description="weight lambda of the penalty on costs out of range",
    )
    tau: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability from which Eq. 6 counts an option as inside",
    )
    eq6: Literal["closed", "printed"] = Field(
        default="closed",
        description="Eq. 6 with the boundaries themselves, or as the paper prints it",
    )
    policy_learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="step size of the policy parameters; left out, 45 over the number of steps, "
        "at most 0.05, times policy_every",
    )
    estimator: Literal["straight_through", "score_function", "measure_valued"] = Field(
        default="straight_through",
        description="estimator of the policies' gradient, the last two compare losses of two "
        "networks",
    )
    policy_every: int = Field(
        default=1,
        ge=1,
        le=10**6,
        description="the policies learn in every so many-th step, the steps between cost no more "
        "than plain ones",
    )
    start_std: float = Field(
        default=0.0316227766, gt=0, le=100, description="standard deviation of Eq. 7's increments"
    )
    start_temperature: float = Field(
        default=0.1,
        ge=1e-6,  # far below, what is divided by it is no float32 any more
        le=1000,
        description="softmax temperature of the policies' start in Eq. 7",
    )
    prior: Annotated[_Values[PriorSettings], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="options the learned boundaries start at; left out, the largest and smallest",
    )
    gumbel_temperature: float = Field(
        default=0.5, gt=0, le=1000, description="temperature of the Gumbel-softmax gradient"
    )
    ghost_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="part of the batch the gradient of options not chosen is computed on",
    )
    checkpoint_every: int = Field(
        default=200, ge=1, le=10**9, description="steps between checkpoints"
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if values.get("grad_from_random") and values.get("learn") == "none":
            yield (
                ("grad_from_random",),
                "found true beside {here}learn = none, where there is no policy to teach; "
                "drop one of the two",
            )
        estimator = values.get("estimator", "straight_through")
        if values.get("grad_from_random") and estimator != "straight_through":
            yield (
                ("grad_from_random",),
                f"found true beside {{here}}estimator = {estimator}, where no gradient flows "
                "through networks; drop one of the two",
            )
        if values.get("prior") and values.get("learn") == "none":
            yield (
                ("prior",),
                "found beside {here}learn = none, where no boundary starts anywhere; drop it, or "
                "leave those options out of the space",
            )
        if not {"steps", "epochs"} <= values.keys():
            return
        steps, epochs = values["steps"], values["epochs"]
        if steps is None and epochs is None:
            yield (), "needs {here}steps or {here}epochs, found neither; write one, as steps: 1000"
        if steps is not None and epochs is not None:
            yield ("epochs",), f"found beside {{here}}steps = {steps}; keep one of the two"


class SearchSettings(Settings):
    """How sub-networks are searched after training (Appendix A.3)."""

    method: Literal["genetic", "nsga2", "tpe"] = Field(
        default="genetic",
        description="the paper's genetic search, or as many networks by Optuna's NSGA-II or TPE",
    )
    initial: int = Field(
        default=256, ge=1, le=10**6, description="architectures drawn to begin with"
    )
    rounds: int = Field(default=20, ge=0, le=10**5, description="rounds of crossover and mutation")
    crossovers: int = Field(
        default=128, ge=0, le=10**6, description="children of two parents per round"
    )
    mutations: int = Field(
        default=128, ge=0, le=10**6, description="mutated architectures per round"
    )
    mutation_probability: float = Field(
        default=0.1, gt=0, le=1, description="chance that a mutation changes a dimension"
    )
    bounds: Literal["learned", "whole"] = Field(
        default="learned", description="search between the learned boundaries, or the whole space"
    )
    calibration_images: int = Field(
        default=2048,
        ge=2,
        le=10**8,
        description="training images that BatchNorm is recalibrated on",
    )
    batch_size: int = Field(
        default=128,
        ge=2,
        le=65_536,
        description="images per calibration step, twice as many are classified at once",
    )
    screen: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="part of the validation images that candidates are screened on; what would be "
        "on the front is measured on all; null measures every candidate on all",
    )

    _retired: ClassVar = MappingProxyType({"give_up": None})


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # Activations ascend as text: relu before swish.
    if len(set(values)) != len(values):
        raise _own_error(f"every choice must differ, found {_listed(values)}")
    if list(values) != sorted(values):
        raise _own_error(f"choices must ascend, found {_listed(values)}")
    return values


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise _own_error(
            f"a kernel must be odd to have a centre, found {size}; write {size - 1} or {size + 1}"
        )
    return size


Choices = Annotated[_Values[_T], Field(min_length=1, max_length=64), AfterValidator(_ascending)]
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


class SpaceSettings(Settings):
    """The search space: a family of networks, by its own table or with stages of your own."""

    family: Literal[
        "mobilenet_v2",
        "mobilenet_v3",
        "mobilenet_v3_55",
        "width_only",
        "width_kernel",
        "width_depth",
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
    stages: Annotated[_Values[StageSettings], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="stages of blocks in order; left out, they are those of the family",
    )


class CostSettings(Settings):
    """The cost range that the networks are made for."""

    metric: Literal["macs", "parameters"] = Field(
        default="macs", description="what cost means: multiply-accumulates per image, or weights"
    )
    lower: float = Field(
        gt=0, le=10**9, description="cost of the smallest network wanted, in millions"
    )
    upper: float = Field(
        gt=0, le=10**9, description="cost of the largest network wanted, in millions"
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        lower, upper = values.get("lower"), values.get("upper")
        if lower is not None and upper is not None and upper <= lower:
            unit = {"macs": "MACs", "parameters": "parameters"}.get(values.get("metric", ""), "")
            yield (
                ("upper",),
                f"{_number(upper)} is not above {{here}}lower = {_number(lower)} "
                f"(both in millions{' of ' * bool(unit)}{unit})",
            )


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

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if "set" not in values:
            return
        files = ("cifar10", "cifar100", "imagenet_d", "imagenet", "folder")
        takers = {"folder": ("fashion_mnist", *files), "image_size": ("imagenet", "folder")}
        needers = {**takers, "folder": files}
        for name in takers:
            if name not in values:
                continue
            missing = values[name] is None
            if missing and values["set"] in needers[name]:
                about = cls.model_fields[name].description
                yield (name,), f"required with {{here}}set: {values['set']}; give the {about}"
            if not missing and values["set"] not in takers[name]:
                *most, last = takers[name]
                yield (
                    (name,),
                    f"goes with {{here}}set: {', '.join(most)} or {last} only, found "
                    f"{{here}}set: {values['set']}; remove it or change the set",
                )


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise _own_error(f"name every format once, found {_listed(values)}")
    return values


class ExportSettings(Settings):
    """What the networks of the front are written as."""

    formats: Annotated[_Values[Literal["onnx", "pt2"]], AfterValidator(_once)] = Field(
        default=("onnx", "pt2"), description="file formats; an empty list exports nothing"
    )


# Explaining faults ---------------------------------------------------------------------------

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BOUNDS = {
    "ge": ("at least", operator.ge),
    "gt": ("above", operator.gt),
    "le": ("at most", operator.le),
    "lt": ("below", operator.lt),
}
_SWITCHES = {
    "true": "true",
    "yes": "true",
    "on": "true",
    "false": "false",
    "no": "false",
    "off": "false",
}

_OTHER_NAMES = {
    "lamda": "penalty_weight",
    "lambda": "penalty_weight",
    "penalty": "penalty_weight",
    "lr": "learning_rate",
    "policy_lr": "policy_learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "iterations": "steps",
    "iters": "steps",
    "max_steps": "steps",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "threshold": "tau",
    "generations": "rounds",
    "population": "initial",
    "population_size": "initial",
    "mutation_rate": "mutation_probability",
    "mutation_prob": "mutation_probability",
    "dataset": "set",
    "path": "folder",
    "val_fraction": "validation_fraction",
    "resolution": "image_size",
    "width_mult": "width",
    "width_multiplier": "width",
    "kernel_size": "kernel",
    "expansion": "intermediate",
    "channels": "output",
    "model": "family",
    "flops": "metric",
    "min_macs": "lower",
    "max_macs": "upper",
    "num_threads": "threads",
    "random_seed": "seed",
}
_OTHER_VALUES = {
    "flops": "macs",
    "mmacs": "macs",
    "mflops": "macs",
    "params": "parameters",
    "gpu": "cuda",
    "silu": "swish",
    "hswish": "swish",
    "slimmable": "width_only",
    "fashion": "fashion_mnist",
    "cifar": "cifar10",
    "cifar-10": "cifar10",
    "cifar-100": "cifar100",
    "imagenet32": "imagenet_d",
    "ilsvrc2012": "imagenet",
    "imagefolder": "folder",
    "all": "both",
    "torch": "pt2",
}


class _Target(NamedTuple):
    """What the settings hold at a location."""

    kind: Any
    limits: Mapping[str, Any]
    about: str


def problem_list(subject: str, rows: Sequence[tuple[str, ...]]) -> str:
    """The message for a number of problems: a heading and one line each, columns aligned.

    Example:
        >>> print(problem_list("run.yaml", [("line 3", "tau", "low"), ("line 20", "seed", "odd")]))
        run.yaml has 2 problems
          line 3   tau   low
          line 20  seed  odd
    """
    listed, more = rows[:MAX_PROBLEMS], len(rows) - MAX_PROBLEMS
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    widths[-1] = 0
    lines = ["  ".join(map(str.ljust, row, widths)) for row in listed]
    heading = f"{subject} has {len(rows)} problem{'s' * (len(rows) != 1)}"
    return "\n  ".join([heading, *lines, *[f"and {more} more"] * (more > 0)])


def dotted(location: Location) -> str:
    """How a location is written in messages.

    Example:
        >>> dotted(("space", "stages", 3, "output"))
        'space.stages[3].output'
    """
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("_", "").replace("-", "").isalnum() and len(step) <= 40
            text += "." * bool(text) + (step if plain else shown(step))
    return text or "(top level)"


def quoted(text: str) -> str:
    r"""Text in double quotes on one line, with the escapes that YAML and Python share.

    Example:
        >>> print(quoted('two\tsmall "words"'))
        "two\tsmall \"words\""
    """
    escaped = (f"\\{c}" if c in '"\\' else c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f'"{"".join(escaped)}"'


def shown(value: object) -> str:
    """A value as it is quoted in messages: short, on one line, as one would write it in YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value if len(value) <= 40 else value[:37] + "...")
        case int() if abs(value) >= 10**30:
            return "a number of more than 30 digits"
        case int() | float():
            return str(value)
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return f"a {type(value).__name__}"


def explain(settings: type[Settings], detail: ErrorDetails) -> str:
    """One fault that validation found, in the user's words: found, allowed, and what to do.

    Args:
        settings: The outermost class that was validated.
        detail: The fault as pydantic describes it. Only its type, place and input are used.
    """
    kind, location, value = detail["type"], detail["loc"], detail["input"]
    if kind == _OWN:
        place = location[: len(location) - detail["ctx"]["depth"]]
        return str(detail["ctx"]["text"]).replace("{here}", dotted(place) + "." if place else "")
    if kind == "extra_forbidden":
        return _unknown_key(settings, location)
    target = _target(settings, location)
    about = f" ({target.about})" if target.about else ""
    if kind == "missing":
        return f"required; give {_allowed(target)}{about}"
    if kind == "too_short":
        return f"needs at least one entry, found an empty list{about}"
    if kind == "too_long":
        return f"may have at most {target.limits['max_length']} entries, found {len(value)}{about}"
    return f"must be {_allowed(target)}{about}, found {shown(value)}{_hint(target, value)}"


def _own_error(text: str, depth: int = 0) -> PydanticCustomError:
    """A fault in our words; ``depth`` is how far it lies below the settings that noticed it."""
    return PydanticCustomError(_OWN, "{text}", {"text": text, "depth": depth})


def _fault(location: Location, text: str) -> InitErrorDetails:
    return {"type": _own_error(text, len(location)), "loc": location, "input": None}


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """A fault that validation reported, in the form in which it can be raised once more."""
    kind, context = detail["type"], detail.get("ctx", {})
    error = PydanticCustomError(_OWN, "{text}", context) if kind == _OWN else kind
    return {"type": error, "loc": detail["loc"], "input": detail["input"], "ctx": context}


def _target(settings: type[Settings], location: Location) -> _Target:
    target = _Target(settings, {}, "")
    for step in location:
        if isinstance(step, str):
            field = target.kind.model_fields[step]
            target = _unwrapped(field.annotation, field.metadata, field.description or "")
        else:
            target = _unwrapped(get_args(target.kind)[0], about=target.about)
    return target


def _unwrapped(annotation: Any, marks: Sequence[Any] = (), about: str = "") -> _Target:
    """An annotation without ``Annotated`` and ``None``, and the limits found on the way."""
    limits = {
        name: getattr(mark, name)
        for mark in marks
        for name in (*_BOUNDS, "max_length")
        if getattr(mark, name, None) is not None
    }
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        flat = [m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else [e])]
        inner = _unwrapped(annotation, flat, about)
    elif get_origin(annotation) in (Union, UnionType):
        inner = _unwrapped(get_args(annotation)[0], (), about)
    else:
        inner = _Target(annotation, {}, about)
    return inner._replace(limits={**inner.limits, **limits})


def _allowed(target: _Target) -> str:
    kind, limits = target.kind, target.limits
    if get_origin(kind) is Literal:
        *most, last = get_args(kind)
        return f"{', '.join(most)} or {last}"
    if get_origin(kind) is tuple:
        return "a list"
    if kind not in _KINDS:
        return f"a mapping with keys such as {', '.join(list(kind.model_fields)[:3])}"
    if kind is int and limits["le"] == limits["ge"] + 1:
        return f"{limits['ge']} or {limits['le']}"
    if "ge" in limits and "le" in limits:
        return f"{_KINDS[kind]} from {limits['ge']:,} to {limits['le']:,}"
    bounds = [f"{words} {limits[name]:,}" for name, (words, _) in _BOUNDS.items() if name in limits]
    return " ".join([_KINDS[kind], " and ".join(bounds)]).rstrip()


def _hint(target: _Target, value: object) -> str:
    """What to write instead, where the value tells."""
    kind = target.kind
    if get_origin(kind) is tuple:
        item = _unwrapped(get_args(kind)[0]).kind
        fits = value in get_args(item) if isinstance(value, str) else type(value) is item
        return f"; write [{_listed((value,))}]" if fits else ""
    if kind is str and isinstance(value, int | float):
        return "; put it in quotes"
    if kind in (int, float) and isinstance(value, str | float):
        return _number_hint(target, value)
    if not isinstance(value, str):
        return ""
    word = value[:40].lower()
    if get_origin(kind) is Literal:
        close = difflib.get_close_matches(_OTHER_VALUES.get(word, word), get_args(kind), 1)
        return f"; did you mean {close[0]}?" if close else ""
    return f"; write {_SWITCHES[word]}" if kind is bool and word in _SWITCHES else ""


def _number_hint(target: _Target, value: str | float) -> str:
    plain = value.replace("_", "").replace(",", ".") if isinstance(value, str) else value
    try:
        number = float(plain)
    except ValueError:
        return ""
    limits = target.limits
    allowed = all(holds(number, limits[n]) for n, (_, holds) in _BOUNDS.items() if n in limits)
    if not allowed or not math.isfinite(number) or (target.kind is int and number % 1):
        return ""
    quotes = " without quotes" * (isinstance(value, str) and plain == value)
    return f"; write {_number(number)}{quotes}"


def _unknown_key(settings: type[Settings], location: Location) -> str:
    parent, key = location[:-1], str(location[-1])
    siblings = list(_target(settings, parent).kind.model_fields)
    paths: dict[str, list[str]] = {}
    for path in _paths(settings):
        paths.setdefault(path.split(".")[-1], []).append(path)
    asked = key[:80].lower().replace("-", "_")
    name = _nearest(asked.split(".")[-1], siblings, list(paths))
    if name is None:
        return f"unknown key; allowed here: {', '.join(siblings)}"
    if name in siblings:
        return f"unknown key; did you mean {dotted((*parent, name))}?"
    whole = asked if "." in asked else dotted((*parent, asked))
    path = difflib.get_close_matches(whole, paths[name], 1, 0)[0]
    top = " at the top level" * (bool(parent) and "." not in path)
    return f"unknown key; did you mean {path}{top}?"


def _nearest(word: str, siblings: Sequence[str], everywhere: Sequence[str]) -> str | None:
    for known in (siblings, everywhere):
        for name in (_OTHER_NAMES.get(word, word), word):
            if name in known:
                return name
    for known in (siblings, everywhere):
        for close in difflib.get_close_matches(word, known, 1, 0.7):
            return close
    return None


def _paths(settings: type[Settings], place: str = "") -> Iterator[str]:
    """The dotted keys of settings and of all settings inside them; ``[]`` follows a list."""
    for name in settings.model_fields:
        yield place + name
        inner, brackets = _target(settings, (name,)).kind, ""
        if get_origin(inner) is tuple:
            inner, brackets = _unwrapped(get_args(inner)[0]).kind, "[]"
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _paths(inner, f"{place}{name}{brackets}.")


def _number(value: float) -> str:
    return str(value).removesuffix(".0")


def _listed(values: Sequence[object]) -> str:
    return ", ".join(value if isinstance(value, str) else shown(value) for value in values)
