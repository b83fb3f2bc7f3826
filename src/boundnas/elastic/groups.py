"""Groups of channels: of a searched width, whole groups are active or not."""

from __future__ import annotations

from dataclasses import dataclass

from boundnas.errors import SpaceError
from boundnas.space import Width, check_sizes, choices, followed, parts_of
from boundnas.space.polynomial import Polynomial, amount


@dataclass(frozen=True)
class Groups:
    """How the inputs of a convolution fall into groups.

    Args:
        fixed: Their number, where no width is searched.
        width: Input channels of each, where as many groups as there are channels for are active.
    """

    fixed: int = 1
    width: int | None = None

    @property
    def apart(self) -> bool:
        """Whether an output sees a part of the inputs only."""
        return self.width is not None or self.fixed > 1

    def number(self, inputs: int) -> int:
        """Of so many input channels."""
        return self.fixed if self.width is None else inputs // self.width

    def inputs(self, width: Width) -> Polynomial:
        """Input channels that an output channel sees."""
        if self.width is not None:
            return amount(self.width)
        return amount(width) if self.fixed == 1 else amount(width, lambda c: int(c) // self.fixed)


def groups_of(owner: str, inputs: Width, outputs: Width, number: int, width: int | None) -> Groups:
    """Read the groups of a convolution.

    Args:
        owner: Its name.
        inputs: Its input channels.
        outputs: Its output channels.
        number: Of groups, for fixed widths.
        width: Input channels of each, in place of their number.

    Raises:
        SpaceError: The widths do not fall into whole groups, or a searched one asks for a fixed
            number of them.
    """
    check_sizes(owner, groups=number)
    if width is None:
        _check_number(owner, inputs, outputs, number)
        return Groups(number)
    check_sizes(owner, group_width=width)
    if number != 1:
        raise SpaceError(f"{owner}: give groups or group_width, found {number} and {width}")
    check_whole(owner, inputs, width)
    _check_alike(owner, inputs, outputs, width)
    return Groups(1, width)


def check_whole(owner: str, channels: Width, width: int) -> None:
    """Refuse channels that are no whole groups of a width.

    Raises:
        SpaceError: Names the number that does not divide.
    """
    uneven = [c for part in parts_of(channels) for c in choices(part) if int(c) % width]
    if uneven:
        raise SpaceError(
            f"{owner}: channels come in whole groups of {width}, found {uneven[0]}; let every "
            f"choice be a multiple of group_width"
        )


def _check_number(owner: str, inputs: Width, outputs: Width, number: int) -> None:
    if number == 1:
        return
    given = (inputs, outputs)
    if not all(isinstance(width, int) and width % number == 0 for width in given):
        raise SpaceError(
            f"{owner}: a number of groups, {number}, divides two fixed widths; of a searched one "
            "whole groups are the unit: give group_width in place of groups"
        )


def _check_alike(owner: str, inputs: Width, outputs: Width, width: int) -> None:
    """Refuse output channels that are not as many for every group, whatever is chosen."""
    pairs = [*zip(parts_of(inputs), parts_of(outputs), strict=False)]
    alike = len(parts_of(inputs)) == len(parts_of(outputs)) and all(
        followed(a) == followed(b) for a, b in pairs
    )
    each = {
        int(co) * width / int(ci)
        for a, b in pairs
        for ci, co in zip(choices(a), choices(b), strict=alike)
    }
    if not alike or len(each) != 1 or not min(each).is_integer():
        raise SpaceError(
            f"{owner}: with group_width={width} the input and output channels follow one "
            "dimension, in one ratio, so that every group has as many outputs; found "
            f"{[*map(choices, parts_of(inputs))]} and {[*map(choices, parts_of(outputs))]}"
        )
