"""What can be set: frozen, typed, range-checked, with faults explained in the user's words.

The same classes serve a Python caller (``TrainSettings(steps=1000)``) and the sections of a
configuration file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from boundnas.errors import ArgumentError, ConfigError
from boundnas.settings.explain import ALONE, Location, again, dotted, explain, fault, problem_list


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no conversion of text or switches to numbers.

    Raises:
        ConfigError: Unknown keys, missing keys, values of the wrong type or outside their range,
            values that contradict each other; lists all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, *given: Any, **values: Any) -> None:
        if given:
            raise ArgumentError(
                f"{type(self).__name__}: settings are given by their names, as batch_size=64, "
                f"found {given[0]!r:.60}"
            )
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
            faults = [again(_placed(detail, given)) for detail in error.errors(include_url=False)]
        if isinstance(given, Mapping):
            faulty = {str(fault["loc"][0]) for fault in faults if fault.get("loc")}
            known = {
                name: given.get(name, None if field.is_required() else field.default)
                for name, field in cls.model_fields.items()
                if name not in faulty
            }
            faults += [fault(loc, text) for loc, text in cls._conflicts(known)]
        if faults or settings is None:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return settings

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        """Faults between fields; ``values`` holds the fields that have no fault of their own.

        ``{here}`` in a text stands for the place of these settings, such as ``cost.``.
        """
        yield from ()


def as_tuple(value: object) -> object:
    """A list as a tuple: strict validation takes no list where a frozen field holds a tuple."""
    return tuple(value) if isinstance(value, list) else value


_T = TypeVar("_T")
Values = Annotated[tuple[_T, ...], BeforeValidator(as_tuple)]


def as_several(value: object) -> object:
    """A list as a tuple, anything else as the only one of a tuple."""
    return as_tuple(value) if isinstance(value, list | tuple) else (value,)


OneOrMore = Annotated[tuple[_T, ...], BeforeValidator(as_several), ALONE]


def _placed(detail: ErrorDetails, given: object) -> ErrorDetails:
    """A fault at the place that the user wrote: what stands for a list of one has no number."""
    match detail["loc"]:
        case (str(key), 0, *rest) if isinstance(given, Mapping) and not isinstance(
            given.get(key), list | tuple
        ):
            return {**detail, "loc": (key, *rest)}
    return detail
