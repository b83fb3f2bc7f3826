"""Any network as a supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.convert import (  # noqa: F401
    elementwise,
    filling,
    layers,
    products,
    reducing,
    repeating,
    reshaping,
    stepping,
)
from boundnas.convert.building import Builder
from boundnas.convert.dimensions import propose
from boundnas.convert.functional import as_modules
from boundnas.convert.given import check_arguments, copied, hooked
from boundnas.convert.importance import orders
from boundnas.convert.known import ROUNDING, known
from boundnas.convert.old_norms import parametrize
from boundnas.convert.positions import as_weights
from boundnas.convert.reading import read
from boundnas.convert.recurrent import Recurrent
from boundnas.convert.report import Report, report
from boundnas.convert.rewrite import rewrite
from boundnas.convert.rules import Rule
from boundnas.convert.trace import trace
from boundnas.convert.verify import check_same, failing
from boundnas.errors import ConvertError
from boundnas.nested import Inputs, count, mapped
from boundnas.space import Architecture, Dimension
from boundnas.supernet.calibrate import Calibrated
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights import Weights
from boundnas.typed import checked

Converter = Callable[[Any], nn.Module]
"""From a module to one that computes the same, made of layers and functions that have rules."""


class Elasticized(Supernet):
    """A network that `elasticize` made elastic.

    Args:
        example: One sample.
        net: Called with a batch and an architecture.
        dimensions: What it is built with.
        report: What is searched, and what stays fixed.
        moments: Mean and variance of each normalization in ``net``.
    """

    original: Architecture
    """The largest architecture with the statistics that the network came with."""

    def __init__(
        self,
        example: Inputs,
        net: nn.Module,
        dimensions: Sequence[Dimension],
        report: Report,
        moments: Mapping[nn.Module, tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(example)
        self._dimensions = list(dimensions)
        self.net = net
        # Private, as lines of code that made it are no part of what a run is.
        self._report = report
        named = {n: moments[m] for n, m in self.named_modules() if m in moments}
        largest = self.space.largest
        statistics = Calibrated(named, largest.indices, Weights(self))
        self.original = largest.carrying(statistics=statistics)

    @property
    def report(self) -> Report:
        """What is searched, what stays fixed, and why."""
        return self._report

    def forward(self, x: Inputs, arch: Architecture) -> Any:
        """What the network of this architecture gives."""
        return self.net(x, arch)


@checked
def elasticize(
    model: nn.Module,
    example: Inputs,
    rules: Mapping[str, Any] | None = None,
    converters: Mapping[Any, Any] | None = None,
    sort: bool = True,
) -> Elasticized:
    """Make a network elastic: a supernet whose largest member it is, with its weights.

    The network is followed with ``torch.fx``. Channels that must stay equal (those that a residual
    sum adds, a depthwise convolution passes on) become one width; large kernels and residual
    blocks in a row are searched too. **What has no rule stays as it is**, and ``report`` says what
    and why. The result is compared with the network before it is returned.

    Args:
        model: Any network, trained or not; it is left as it is.
        example: A batch that it takes, of one sample or more: a tensor, or a tuple or dict of them.
        rules: By name pattern of a dimension or module (``"layer3.*"``), a `Rule`, or none for
            what stays as it is. The last that says something counts.
        converters: By type of a module of yours, a function from it to a module that computes the
            same, made of layers and functions that have rules.
        sort: Whether channels are sorted by importance, so that narrow networks keep the important
            ones. It changes the outputs of the largest network by rounding only; without it they
            stay bit for bit.

    Returns:
        A `Supernet`, with ``report``, and ``original``, the largest architecture with the
        statistics of its normalizations: ``net(x) == model(x, model.original)`` in evaluation.

    Raises:
        ConvertError: The network cannot be followed, nothing of it can be searched, a rule
            cannot be met, or the result computes something else.
    """
    check_arguments(model, example, rules or {}, converters or {})
    kept: dict[str, str] = {}
    while True:  # each turn keeps a dimension more
        own = _converted(copied(model), converters or {})
        own.eval()
        rounds = sort or any(isinstance(m, ROUNDING) for m in own.modules())
        made, found, reckoned = _made(own, example, rules or {}, kept, sort)
        if not found:
            break
        kept |= found
    check_same(model, made, made.original, exact=not (rounds or reckoned))
    return made


def _made(
    own: nn.Module,
    example: Inputs,
    rules: Mapping[str, Rule | None],
    kept: Mapping[str, str],
    sort: bool,
) -> tuple[Elasticized, dict[str, str], bool]:
    """A supernet of a network, which is used up, the dimensions that do not work, and whether
    something of it was written in a way that rounds otherwise.
    """
    batch = mapped(_two, example)
    samples = count(batch)
    traced = trace(own, batch)
    as_modules(traced)
    filling.as_weights(traced)
    as_weights(traced)
    plan = propose(read(traced), rules, kept)
    table = report(plan, samples)
    builder = Builder(plan, orders(plan.read, list(plan.widths)) if sort else {})
    net = rewrite(plan, builder)
    made = Elasticized(mapped(_sample, example), net, plan.dimensions, table, builder.moments)
    return made, failing(made, builder.whole, samples), traced.rounds


def _two(x: Tensor) -> Tensor:
    """A batch of two or more, in which the axis of samples is no axis of one entry."""
    return x if len(x) > 1 else torch.cat((x, x))


def _sample(x: Tensor) -> Tensor:
    return x[0].detach().float() if x.is_floating_point() else x[0].detach()


def _converted(model: nn.Module, converters: Mapping[type[nn.Module], Converter]) -> nn.Module:
    """With the modules that converters are for replaced."""
    if type(model) in converters:
        found = converters[type(model)](model)
        if not isinstance(found, nn.Module):
            raise ConvertError(
                f"the converter of {type(model).__name__} gives a module, found {found!r:.60}"
            )
        found.eval()
        return found
    parametrize(model)
    if not hooked(model):
        model = known(model)
    model.eval()
    for name, child in () if isinstance(model, Recurrent) else _children(model):
        setattr(model, name, _converted(child, converters))
    return model


def _children(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, child) for name, child in list(model._modules.items()) if child is not None)
