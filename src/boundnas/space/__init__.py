"""Search spaces: ordinal dimensions, architectures, and amounts that depend on them."""

from boundnas.space.architectures import Architecture, SearchSpace
from boundnas.space.dimensions import (
    Allowed,
    Derived,
    Dimension,
    Joined,
    Setting,
    Value,
    Width,
    check_sizes,
    choices,
    combinations,
    followed,
    following,
    largest,
    parts_of,
    place,
    searched,
)
from boundnas.space.passes import Pass, Statistics

__all__ = [
    "Allowed",
    "Architecture",
    "Derived",
    "Dimension",
    "Joined",
    "Pass",
    "SearchSpace",
    "Setting",
    "Statistics",
    "Value",
    "Width",
    "check_sizes",
    "choices",
    "combinations",
    "followed",
    "following",
    "largest",
    "parts_of",
    "place",
    "searched",
]
