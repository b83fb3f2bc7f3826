"""Multi-head attention with a searched number of heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from boundnas.elastic.layer import ElasticModule
from boundnas.elastic.linear import Linear
from boundnas.errors import SpaceError
from boundnas.space import Architecture, Derived, Dimension, Setting, Width, check_sizes, choices


class MultiheadAttention(ElasticModule):
    """``softmax(q k^T / sqrt(head_width)) v`` of every head, and a linear layer of all of them.

    Heads are treated separately, so that those that were not chosen are computed without a graph
    and their gates sit at the last layer's weights.

    Args:
        features: Width of the tokens.
        heads: Number of heads, of the queries.
        head_width: Features of a head.
        group: Heads that share keys and values (grouped queries); whole groups are searched.
        memory_features: Width of the tokens that are attended to, if these are others.
        out_features: Width of what it gives; none is ``features``.
        causal: Whether a token attends to itself and those before it only.
        bias: Whether its linear layers add one.

    Shape:
        ``(N, ..., T, features)`` to ``(N, ..., T, out_features)``: it attends along the last axis
        but one.

    Raises:
        SpaceError: A number of heads that is no multiple of ``group``.
    """

    axis = -1

    def __init__(
        self,
        features: Width,
        heads: Setting,
        head_width: int,
        *,
        group: int = 1,
        memory_features: Width | None = None,
        out_features: Setting | None = None,
        causal: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_sizes(owner, features=features, heads=heads, head_width=head_width, group=group)
        if odd := [int(h) for h in choices(heads) if int(h) % group]:
            raise SpaceError(
                f"{owner}: heads come in groups of {group} that share keys and values, "
                f"found {', '.join(map(str, odd))}"
            )
        self.head_width, self.group, self.causal = head_width, group, causal
        memory = features if memory_features is None else memory_features
        inner = _mapped(heads, lambda h: h * head_width)
        shared = _mapped(heads, lambda h: h // group * head_width)
        self.query = Linear(features, inner, bias)
        self.key, self.value = Linear(memory, shared, bias), Linear(memory, shared, bias)
        if out_features is None:
            if not isinstance(features, int | Dimension | Derived):
                raise SpaceError(f"{owner}: of joined features, say out_features")
            out_features = features
        self.project, self.out_features = Linear(inner, out_features, bias), out_features

    def forward(
        self,
        x: Tensor,
        arch: Architecture,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend to ``memory``, or to ``x`` itself.

        Args:
            x: The tokens; see the class for shapes.
            arch: The architecture.
            memory: Tokens that are attended to, shape ``(N, ..., S, memory_features)``.
            mask: Which ones may be, or what is added before the softmax, as in torch: a shape that
                broadcasts to ``(N, ..., heads, T, S)``, one head for all.
        """
        memory = x if memory is None else memory
        query = self._heads(self.query(x, arch))
        key, value = (self._heads(layer(memory, arch)) for layer in (self.key, self.value))
        if self.group > 1:
            key, value = (y.repeat_interleave(self.group, -3) for y in (key, value))
        y = F.scaled_dot_product_attention(query, key, value, mask, is_causal=self.causal)
        return self.project(y.transpose(-3, -2).flatten(-2), arch)

    def _heads(self, x: Tensor) -> Tensor:
        """Heads on an axis of their own, before that of the tokens."""
        return x.unflatten(-1, (-1, self.head_width)).transpose(-3, -2)


def _mapped(setting: Setting, function: Callable[[int], int]) -> Setting:
    if isinstance(setting, Dimension | Derived):
        return setting.map(function)
    return function(int(setting))
