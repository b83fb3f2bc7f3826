"""The base class of supernets: a model called as ``model(x, arch)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from boundnas.elastic import ElasticModule
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Dimension, SearchSpace, Value


class Supernet(nn.Module):
    """Weights of a whole family of networks, and the space of its members.

    Subclass it: create dimensions with `dimension`, build elastic layers with them, and write
    ``forward(self, x, arch)`` as for an ordinary network, passing ``arch`` on to every elastic
    layer. Slicing, the exact policy gradient, the cost, extraction and export follow from that.
    Between elastic layers any function may stand that treats channels alike and separately.

    Args:
        input_shape: Channels, height and width of one image.

    Example:
        >>> import torch
        >>> from boundnas import elastic
        >>> class Net(Supernet):
        ...     def __init__(self):
        ...         super().__init__((3, 8, 8))
        ...         width = self.dimension("width", [4, 8])
        ...         self.conv = elastic.Conv2d(3, width, kernel_size=3)
        ...         self.head = elastic.Linear(width, 10)
        ...
        ...     def forward(self, x, arch):
        ...         return self.head(self.conv(x, arch).relu().mean((2, 3)), arch)
        >>> net = Net()
        >>> net(torch.zeros(2, 3, 8, 8), net.space.smallest).shape
        torch.Size([2, 10])
    """

    frozen: frozenset[str] = frozenset()
    """Names of the modules that were in evaluation mode by themselves when it last trained."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.input_shape = input_shape
        self._dimensions: list[Dimension] = []
        self._space: SearchSpace | None = None

    def dimension(self, name: str, choices: Sequence[Value], kind: str = "width") -> Dimension:
        """Add a searched dimension to the space; see `boundnas.space.Dimension`.

        Raises:
            SpaceError: The choices cannot be a dimension's, or the space is in use already.
        """
        if self._space is not None:
            raise SpaceError(f"{name}: dimensions are created before the space is first used")
        dimension = Dimension(name, tuple(choices), kind)
        self._dimensions.append(dimension)
        return dimension

    @property
    def space(self) -> SearchSpace:
        """The product of all dimensions, in the order they were created."""
        if self._space is None:
            self._space = SearchSpace(self._dimensions)
            for name, module in self.named_modules():
                if isinstance(module, ElasticModule):
                    module.name = name
        return self._space

    def __call__(self, x: Tensor, arch: Architecture) -> Any:
        """Logits of the sub-network ``arch``.

        Args:
            x: Images, shape ``(N, *input_shape)``.
            arch: An architecture of this model's space, plain or with what travels with it.

        Raises:
            SpaceError: ``arch`` is of another space.
            CalibrationError: It carries statistics of another model or of other weights.
        """
        if arch.space is not self.space and arch.space != self.space:
            raise SpaceError(
                f"this architecture is of another space ({arch.space}) than the model's "
                f"({self.space}); take it from model.space"
            )
        arch.check(self)
        return super().__call__(x, arch)
