"""Search spaces: ordinal dimensions, architectures, and amounts that depend on them."""

from boundnas.space.architectures import Allowed, Architecture, SearchSpace
from boundnas.space.dimensions import (
    Derived,
    Dimension,
    Setting,
    Value,
    check_sizes,
    choices,
    largest,
)
from boundnas.space.passes import Pass, Statistics

__all__ = [
    "Allowed",
    "Architecture",
    "Derived",
    "Dimension",
    "Pass",
    "SearchSpace",
    "Setting",
    "Statistics",
    "Value",
    "check_sizes",
    "choices",
    "largest",
]
