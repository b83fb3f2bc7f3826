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

__all__ = [
    "Allowed",
    "Architecture",
    "Derived",
    "Dimension",
    "SearchSpace",
    "Setting",
    "Value",
    "check_sizes",
    "choices",
    "largest",
]
