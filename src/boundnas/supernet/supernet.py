"""The base class of supernets: a model called as ``model(x, arch)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from boundnas.elastic import ElasticModule
from boundnas.errors import SpaceError
from boundnas.nested import Inputs, leaves
from boundnas.space import Architecture, Dimension, SearchSpace, Value
from boundnas.supernet import inputs


class Supernet(nn.Module):
    """Weights of a whole family of networks, and the space of its members.

    Subclass it: create dimensions with `dimension`, build elastic layers with them, and write
    ``forward(self, x, arch)`` as for an ordinary network, passing ``arch`` on to every elastic
    layer. Slicing, the exact policy gradient, the cost, extraction and export follow from that.
    Between elastic layers any function may stand that treats channels alike and separately.

    Args:
        input_shape: Channels, height and width of one image, or the shape of another sample of
            float32; or one sample without the batch axis, such as ``data.example``: a tensor, of
            float32 or whole numbers, or a tuple or dict of tensors.

    Examples:
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

    def __init__(self, input_shape: Sequence[int] | Inputs) -> None:
        super().__init__()
        self.example = inputs.as_example(input_shape)
        self._named: list[tuple[Any, dict[str, nn.Module | None], str | None]] | None = None
        self._dimensions: list[Dimension] = []
        self._space: SearchSpace | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample; of one that has several tensors, that of the first."""
        return tuple(next(leaves(self.example))[1].shape)

    def dimension(self, name: str, choices: Sequence[Value], kind: str = "width") -> Dimension:
        """Add a searched dimension to the space; see `boundnas.space.Dimension`.

        Raises:
            SpaceError: The choices cannot be a dimension's, or the space is in use already.
        """
        if self._space is not None:
            raise SpaceError(f"{name}: dimensions are created before the space is first used")
        dimension = Dimension(name, choices, kind)  # type: ignore[arg-type]
        self._dimensions.append(dimension)
        return dimension

    @property
    def space(self) -> SearchSpace:
        """The product of all dimensions, in the order they were created."""
        if self._space is None:
            self._space = SearchSpace(self._dimensions)
        return self._space

    def _name_modules(self) -> None:
        """Tell every elastic module its name, unless all modules are where they were last time.

        Comparing the modules' own tables takes about a thousandth of a pass.
        """
        held = self._named
        if held is not None and all(
            module._modules == children and (name is None or module.name == name)
            for module, children, name in held
        ):
            return
        self._named = []
        for name, module in self.named_modules():
            elastic = isinstance(module, ElasticModule)
            if elastic:
                module.name = name
            self._named.append((module, dict(module._modules), name if elastic else None))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is found again at the next call: for copies and pickles."""
        return {**self.__dict__, "_named": None}

    def __call__(self, x: Inputs, arch: Architecture | None = None) -> Any:
        """Logits of the sub-network ``arch``.

        Args:
            x: Inputs like ``example``, with the batch axis first: images of shape ``(N, C, H, W)``,
                of the weights' type, where ``C`` is ``input_shape``'s. Its height and width are
                those of training, costs and extraction; other sizes may be tried where the layers
                allow it.
            arch: An architecture of this model's space, plain or with what travels with it.

        Raises:
            ArgumentError: ``arch`` is missing, or no architecture.
            SpaceError: ``arch`` is of another space, or ``x`` is no batch of inputs for this model.
            CalibrationError: It carries statistics of another model or of other weights.
        """
        arch = self.space.check(arch, type(self).__name__)
        self._name_modules()
        inputs.check(self, self.example, x)
        arch.check(self)
        return super().__call__(x, arch)
