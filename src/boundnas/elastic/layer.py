"""What every elastic layer offers, whatever it computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from boundnas.elastic.computed import Computed
from boundnas.elastic.width import ghosts_of
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Dimension, Width
from boundnas.space.polynomial import Polynomial, amount
from boundnas.typed import checked


class ElasticModule(nn.Module, ABC):
    """A module whose shape follows an architecture: ``module(x, arch)``.

    Pure in (weights, ``x``, ``arch``). It holds the weights of its largest form, and a smaller form
    uses a leading slice of them.
    """

    name: str = "?"
    """Qualified name within the supernet; set by it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have the library's own layers refuse arguments of other types.

        What may be searched they check themselves, as a dimension has to say which choice is wrong.
        """
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.startswith("boundnas."):
            checked(cls, but=Dimension)

    @abstractmethod
    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Compute the form that ``arch`` chooses."""

    def presence(self, child: str) -> Polynomial:
        """One where the child module of this name is in use, zero where it is not."""
        return amount(1)


class ElasticLayer(ElasticModule):
    """An elastic module with no modules inside: the unit of cost and of extraction."""

    takes: ClassVar[str] = "(N, C, H, W)"
    """What `check_width` expects of an input."""
    axis: int | None = 1
    """Where the channels of its maps lie: 1, -1 for the last axis, or none for anywhere."""
    varied: bool = False
    """Whether it takes maps that were normalized over a searched width."""

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """A parameter, buffer or module; of a weight that is computed what it is now."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            computed: Computed | None = self.__dict__.get("computed", {}).get(name)
            if computed is None:
                raise
            return computed.of(self)

    @abstractmethod
    def macs(self, positions: int) -> Polynomial:
        """Multiply-accumulates for one sample with so many output pixels; see `positions`."""

    def positions(self, x: Tensor, y: Tensor) -> int:
        """Over how many places of one sample `macs` counts: by default those of what it gives.

        Args:
            x: What it took.
            y: What it gave.
        """
        return 1 if self.axis is None else y.shape[1:].numel() // y.shape[self.axis]

    @abstractmethod
    def parameter_count(self) -> Polynomial:
        """Number of trained parameters in use."""

    @abstractmethod
    def plain(self, arch: Architecture) -> nn.Module | None:
        """The chosen form as a plain module with its own weights; none where it does nothing."""

    def check_width(self, x: Tensor, expected: int) -> None:
        """Refuse an input without the axes, or the channels that the architecture gives this layer.

        Raises:
            SpaceError: Names the layer, what it got and what it expects.
        """
        axes = self.takes.count(",") + 1
        if x.dim() < 2 or ("..." not in self.takes and x.dim() != axes):
            raise SpaceError(
                f"{self.name} ({type(self).__name__}) takes inputs of the shape {self.takes}, "
                f"found {tuple(x.shape)}; bring what else there is to one of these axes, or take "
                "the mean over it"
            )
        width = x.shape[-1 if self.axis is None else self.axis]
        if width != expected:
            raise SpaceError(
                f"{self.name} ({type(self).__name__}) expects {expected} input channels in this "
                f"architecture, found {width}; the layer before it must be built with "
                "the same dimension"
            )

    def check_ghost(self, ghost: Tensor | None, width: Width, arch: Architecture) -> None:
        """Refuse an input that lost the channels whose gates wait for a gradient here.

        Raises:
            SpaceError: Names the layer and what may stand before it.
        """
        if ghost is None and ghosts_of(width, arch):
            raise SpaceError(
                f"{self.name} ({type(self).__name__}): the channels that were not chosen did not "
                "arrive, so their policy gradient would be missing; between elastic layers "
                "use functions of one map to one map that treat channels alike and separately"
            )


def frozen(weight: Tensor) -> nn.Parameter:
    """A contiguous copy of a weight slice as the parameter of a plain module."""
    return nn.Parameter(weight.detach().contiguous().clone())
