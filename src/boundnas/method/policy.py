"""The two learned boundaries and the uniform policy between them (Sec. 3, Eq. 3-7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from boundnas.errors import SpaceError
from boundnas.space import Allowed, Architecture, Pass, SearchSpace

Boundary = Literal["max", "min"]
BOUNDARIES: tuple[Boundary, Boundary] = ("max", "min")


class Policy(nn.Module):
    """Independent categorical distributions, one per dimension (Eq. 3).

    The trained values are the logits before the softmax of Eq. 7, so probabilities stay on the
    simplex; ``probabilities = softmax(logits / temperature)``. A point mass has a fixed option per
    dimension and nothing to train: it is the boundary of plain sandwich sampling.

    Args:
        space: The search space.
        logits: Start values, shape ``(D, d_max)``; entries beyond a dimension's options are
            ignored. ``-inf`` rules an option out.
        temperature: ``T`` of Eq. 7.
        learned: Whether the logits are trained.
    """

    def __init__(
        self, space: SearchSpace, logits: Tensor, temperature: float = 0.1, learned: bool = True
    ) -> None:
        super().__init__()
        self.space = space
        self.temperature = temperature
        self.learned = learned
        self.logits = nn.Parameter(logits, requires_grad=learned)
        self.register_buffer("_exists", _exists(space), persistent=False)
        self._exists: Tensor

    @property
    def scores(self) -> Tensor:
        """Unnormalized log-probabilities, shape ``(D, d_max)``, ``-inf`` beyond the options."""
        return (self.logits / self.temperature).masked_fill(~self._exists, -math.inf)

    @property
    def marginals(self) -> Tensor:
        """Option probabilities, shape ``(D, d_max)``, zero beyond a dimension's options."""
        return self.scores.softmax(-1)

    @property
    def probabilities(self) -> Tensor:
        """`marginals` without a gradient."""
        return self.marginals.detach()

    @property
    def mode(self) -> Architecture:
        """The most probable architecture."""
        return Architecture(self.space, tuple(self.scores.argmax(-1).tolist()))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Expected value and standard deviation of every dimension, shape ``(D,)`` each.

        Values are those of the choices; text counts by its position.
        """
        numbers = torch.zeros(self._exists.shape, dtype=torch.float64)
        for row, dimension in zip(numbers, self.space.dimensions, strict=True):
            row[: len(dimension)] = torch.tensor(dimension.numbers, dtype=torch.float64)
        p = self.probabilities.cpu().double()
        mean = (p * numbers).sum(-1)
        return mean, (p * (numbers - mean[:, None]) ** 2).sum(-1).sqrt()

    def log_probability(self, arch: Architecture) -> Tensor:
        """``log p(arch)`` of Eq. 3, a scalar with the gradient of the logits."""
        chosen = torch.tensor(arch.indices, device=self.logits.device)[:, None]
        return self.scores.log_softmax(-1).gather(-1, chosen).sum()

    def sample(
        self,
        generator: torch.Generator,
        gumbel_temperature: float = 0.5,
        learns: bool = True,
    ) -> Architecture:
        """Draw an architecture by straight-through Gumbel-softmax.

        The values are an exact sample of Eq. 3; the gradient is that of the Gumbel-softmax sample.

        Args:
            generator: Source of the Gumbel noise.
            gumbel_temperature: Temperature of the relaxed sample.
            learns: Whether a policy that is learned gets a gradient from this architecture.
        """
        uniform = torch.rand(self._exists.shape, generator=generator, dtype=torch.float64)
        gumbel = -(-uniform.clamp_min(1e-300).log()).log()
        scores = self.scores + gumbel.to(self.logits)
        indices = scores.detach().argmax(-1)
        gates = None
        if self.learned and learns:
            hard = _StraightThrough.apply((scores / gumbel_temperature).softmax(-1), indices)
            gates = self.split(hard)
        return Architecture(self.space, tuple(indices.tolist()), Pass(gates=gates))

    def split(self, table: Tensor) -> tuple[Tensor, ...]:
        """The rows of a table of shape ``(D, d_max)``, each without what no option stands at."""
        return table[self._exists].split([len(d) for d in self.space.dimensions])


class _StraightThrough(torch.autograd.Function):
    """One-hot forward, identity backward; unlike ``hard + soft - soft`` the values are exact."""

    @staticmethod
    def forward(ctx: object, soft: Tensor, indices: Tensor) -> Tensor:
        return torch.zeros_like(soft).scatter_(-1, indices[:, None], 1.0)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _exists(space: SearchSpace) -> Tensor:
    sizes = torch.tensor([len(d) for d in space.dimensions])
    return torch.arange(int(sizes.max())) < sizes[:, None]


def extreme(space: SearchSpace, boundary: Boundary) -> Architecture:
    """The largest architecture for the max boundary, the smallest for the min boundary."""
    return space.largest if boundary == "max" else space.smallest


def point_mass(space: SearchSpace, boundary: Boundary, start: Architecture | None = None) -> Policy:
    """The fixed boundary of plain sandwich sampling: always the largest, or the smallest.

    Args:
        space: The search space.
        boundary: ``"max"`` or ``"min"``.
        start: Another architecture that is always drawn.
    """
    architecture = start or extreme(space, boundary)
    logits = torch.full(_exists(space).shape, -math.inf, dtype=torch.float32)
    logits[torch.arange(len(space)), torch.tensor(architecture.indices)] = 0.0
    return Policy(space, logits, learned=False)


def initial_policy(
    space: SearchSpace,
    boundary: Boundary,
    generator: torch.Generator,
    std: float = math.sqrt(1e-3),
    temperature: float = 0.1,
    start: Architecture | None = None,
) -> Policy:
    """The start of Eq. 7: most probability on the largest (max) or smallest (min) options.

    With prior knowledge the same probabilities start from another architecture: the more probable
    an option, the nearer it is to that of the architecture (Sec. 3, below Eq. 7).

    Args:
        space: The search space.
        boundary: ``"max"`` or ``"min"``.
        generator: Source of the increments.
        std: Standard deviation of the normal variable whose absolute value is an increment; the
            larger, the more peaked the start. The paper's ``N(0, 1e-3)`` is read as a variance.
        temperature: ``T``.
        start: The most probable architecture; the space's largest or smallest by default.
    """
    start = start or extreme(space, boundary)
    shape = _exists(space).shape
    increments = torch.randn(shape, generator=generator, dtype=torch.float32).abs() * std
    increments[:, 0] = 0.1  # a_0; a constant, so it only fixes the scale of the numbers
    logits = increments.cumsum(-1)
    for row, dimension, first in zip(logits, space.dimensions, start.indices, strict=True):
        nearest = sorted(range(len(dimension)), key=lambda j: abs(j - first))
        row[nearest] = row[: len(dimension)].flip(0)
    return Policy(space, logits, temperature)


def random_policy(
    phi: Tensor, theta: Tensor, tau: float = 0.5, eq6: Literal["closed", "printed"] = "closed"
) -> Tensor:
    """Uniform weights over the options that both learned boundaries allow (Eq. 6).

    Args:
        phi: Max-policy probabilities, shape ``(..., d)``, each row sums to 1.
        theta: Min-policy probabilities, same shape.
        tau: Probability threshold in ``(0, 1)``. Paper: 0.5.
        eq6: ``"closed"`` allows option ``j`` when ``P(max >= j) >= tau`` and
            ``P(min <= j) >= tau``, and what lies between the two medians where the boundaries
            cross; ``"printed"`` is the paper's formula, whose support may be empty.

    Returns:
        Probabilities of the random policy, same shape; a row without support is all zero.
        Carries no gradient.

    Note:
        The paper prints ``1 - F(phi)_j``, which never draws the largest option; see
        docs/paper-notes.

    Examples:
        >>> random_policy(torch.tensor([0.0, 0.1, 0.9]), torch.tensor([0.2, 0.8, 0.0]))
        tensor([0.0000, 0.5000, 0.5000])
    """
    phi, theta = phi.detach().double(), theta.detach().double()
    at_least, min_cdf = _tails(phi, theta, eq6)
    slack = 1e-9  # sums of probabilities are exact only to rounding
    allowed = (at_least >= tau - slack) & (min_cdf >= tau - slack)
    if eq6 == "closed":
        cdfs = (phi.cumsum(-1), min_cdf)
        medians = [(cdf < 0.5 - slack).sum(-1, keepdim=True) for cdf in cdfs]
        option = torch.arange(phi.shape[-1], device=phi.device)
        between = (option >= torch.minimum(*medians)) & (option <= torch.maximum(*medians))
        allowed = torch.where(allowed.any(-1, keepdim=True), allowed, between)
    weights = allowed.float()
    return weights / weights.sum(-1, keepdim=True).clamp_min(1)


def _tails(phi: Tensor, theta: Tensor, eq6: Literal["closed", "printed"]) -> tuple[Tensor, Tensor]:
    """``P(max >= j)``, or ``P(max > j)`` as printed, and ``P(min <= j)``: what Eq. 6 compares."""
    return 1 - phi.cumsum(-1) + (phi if eq6 == "closed" else 0), theta.cumsum(-1)  # Eq. 5


class _HardStep(torch.autograd.Function):
    """Heaviside step forward, hard sigmoid backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= -1e-6).to(x)  # sums of probabilities are exact only to rounding

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * 0.5 * (x.abs() <= 1)


@dataclass(frozen=True)
class Boundaries:
    """The two boundaries of a space, and what they leave between them.

    Args:
        max: Where max networks are drawn from.
        min: Where min networks are drawn from.
        tau: Probability threshold of Eq. 6, in ``(0, 1)``.
        eq6: As for `random_policy`.
    """

    max: Policy
    min: Policy
    tau: float = 0.5
    eq6: Literal["closed", "printed"] = "closed"

    def items(self) -> tuple[tuple[Boundary, Policy], ...]:
        """Both, with their names."""
        return ("max", self.max), ("min", self.min)

    @property
    def allowed(self) -> Allowed:
        """The options random networks are drawn from: the support of Eq. 6, per dimension.

        Raises:
            SpaceError: ``eq6="printed"`` leaves a dimension without any option.
        """
        probabilities = self.max.probabilities, self.min.probabilities
        weights = random_policy(*probabilities, self.tau, self.eq6)
        allowed = tuple(tuple(j for j, w in enumerate(row) if w > 0) for row in weights.tolist())
        for dimension, options in zip(self.max.space.dimensions, allowed, strict=True):
            if not options:
                raise SpaceError(
                    f"{dimension.name}: no option lies between the learned boundaries as Eq. 6 is "
                    f"printed (tau = {self.tau}); use eq6: closed, or a smaller tau"
                )
        return allowed

    def gated(self, arch: Architecture) -> Architecture:
        """A random architecture with gates whose gradient reaches both policies (App. C, Fig. 13).

        The gates are an exact one-hot of ``arch``. Their gradient goes straight through to the
        probabilities of Eq. 6, and there through both steps ``1(. - tau)`` as if each were the hard
        sigmoid ``clamp((x + 1) / 2, 0, 1)``, and through the normalization. The paper says no more
        than "a hard sigmoid"; this is the customary one beside a hard step.

        Args:
            arch: Drawn uniformly from `allowed`.
        """
        tails = _tails(self.max.marginals, self.min.marginals, self.eq6)
        weights = math.prod(_HardStep.apply(tail - self.tau) for tail in tails)
        probabilities = weights / weights.sum(-1, keepdim=True).clamp_min(1)
        indices = torch.tensor(arch.indices, device=probabilities.device)
        gates = self.max.split(_StraightThrough.apply(probabilities, indices))
        return arch.carrying(gates=gates)
