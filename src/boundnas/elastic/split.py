"""Taking maps that lie side by side apart."""

from __future__ import annotations

from torch import Tensor

from boundnas.elastic.ghost import join, split
from boundnas.elastic.layer import ElasticModule
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Joined, largest


class Split(ElasticModule):
    """The maps that lie side by side in one, as ``torch.split`` along the channels gives them.

    Of parts that are alike ``torch.chunk`` does the same.

    Args:
        channels: The widths of the maps, as the layer before gives them or ``torch.cat`` did.
        axis: Where they lie: 1, as after convolutions, or -1, as after linear layers on tokens.

    Shape:
        ``(N, C, …)``, or ``(N, …, C)``, to a tuple of such, one for each part.
    """

    def __init__(self, channels: Joined, axis: int = 1) -> None:
        super().__init__()
        if axis not in (1, -1):
            raise SpaceError(f"Split: channels lie on axis 1 or -1, found {axis}")
        self.channels, self.axis = channels, axis

    def forward(self, x: Tensor, arch: Architecture) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Take a map apart; see the class for shapes."""
        x, ghost = split(x)
        sizes = [arch.size(part) for part in self.channels.parts]
        pieces = x.split(sizes, self.axis)
        own = tuple(pieces[i] for i in range(len(sizes)))  # of a traced map, each by its number
        if ghost is None:
            return own
        left = [largest(p) - size for p, size in zip(self.channels.parts, sizes, strict=True)]
        others = zip(own, ghost.split(left, self.axis), left, strict=True)
        return tuple(join(a, g if count else None) for a, g, count in others)
