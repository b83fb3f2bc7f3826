"""What boundaries that begin at the cost range leave of a space, as ``bounds.json`` says it."""

from __future__ import annotations

from boundnas.store.base import Record


class ClipRecord(Record):
    """How far widths were cut (``train.bounds: from_cost``).

    Args:
        lower: No width is below this part of its largest option.
        upper: None is above this part.
        left: Options of all widths together that are left.
        whole: Those that there were.
    """

    lower: float
    upper: float
    left: int
    whole: int

    @property
    def said(self) -> str:
        """It in words."""
        if self.left == self.whole:
            return "the cost range needs the whole space: no width was cut"
        return (
            f"the cost range cut all widths to {self.lower:.3g} to {self.upper:.3g} of the "
            f"largest, {self.left} of their {self.whole} options"
        )
