"""One step of sandwich sampling with boundary learning: Algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from boundnas.cost import Budget
from boundnas.engine.ranks import average, rank
from boundnas.errors import TrainingError
from boundnas.method.estimators import ESTIMATORS
from boundnas.method.policy import (
    BOUNDARIES,
    Boundaries,
    Boundary,
    Policy,
)
from boundnas.method.variants.alphanet import DISTILLATIONS
from boundnas.method.variants.attentivenas import CHOICES, candidates
from boundnas.method.variants.nasvit import add_projected, set_aside
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.space import Allowed, Architecture
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task

ROLES = ("max", "min", "random")
After = Callable[[str, Tensor], None]


class _Pass(NamedTuple):
    """What one network of a boundary comes to: logits, loss, costs and penalty on the costs."""

    logits: Tensor
    loss: Tensor
    costs: list[Tensor]
    penalty: Tensor


@dataclass(frozen=True)
class Sandwich:
    """What every step shares: the supernet, its two boundary policies, and what is asked of them.

    Args:
        model: The supernet.
        max_policy: Where max networks are drawn from.
        min_policy: Where min networks are drawn from.
        budgets: The costs that are penalized, each with its range.
        settings: Weights and temperatures.
        seed: The run's seed.
        task: What the networks are to do.
    """

    model: Supernet
    max_policy: Policy
    min_policy: Policy
    budgets: Sequence[Budget]
    settings: TrainSettings
    seed: int
    task: Task = field(default_factory=Classification)

    def step(
        self, images: Tensor, labels: Tensor, step: int, after: After | None = None
    ) -> dict[str, Tensor]:
        """Add the gradients of one step to weights and policies (Algorithm 1).

        Args:
            images: Normalized images, shape ``(N, C, H, W)``.
            labels: Class numbers, shape ``(N,)``.
            step: Number of the step; with the seed it fixes every draw.
            after: Called when a network's gradients were added, with its role and its loss.

        Returns:
            Scalars for the log, detached.
        """
        task = self.task
        distance = DISTILLATIONS[self.settings.distillation] or task.distance

        def as_max(arch: Architecture) -> _Pass:
            arch = arch.carrying(noise=stream(self.seed, _own("dropout"), step))
            logits, costs = self.model(images, arch), self._relaxed(arch)
            penalty = _total(b.unused(c) for b, c in zip(self.budgets, costs, strict=True))
            return _Pass(logits, task.loss(logits, labels), costs, penalty)

        def as_min(arch: Architecture) -> _Pass:
            logits, costs = self.model(images, arch), self._relaxed(arch)
            penalty = _total(b.excess(c) for b, c in zip(self.budgets, costs, strict=True))
            return _Pass(logits, distance(logits, largest.logits), costs, penalty)

        def backward(role: str, loss: Tensor, penalty: Tensor | None = None) -> None:
            total = loss
            if penalty is not None and penalty.requires_grad:
                total = loss + self.settings.penalty_weight * penalty
            total.backward()
            if after is not None:
                after(role, loss)

        # All that the policies decide is read off at once: a device waits for the host here only.
        max_arch, min_arch = (self._draw(boundary, step) for boundary in BOUNDARIES)
        tau, eq6 = self.settings.tau, self.settings.eq6
        boundaries = Boundaries(self.max_policy, self.min_policy, tau, eq6)
        allowed: Allowed = ()
        if self.settings.random_networks:
            allowed = boundaries.allowed

        # Train the max network with the true labels.
        largest = as_max(max_arch)
        backward("max", largest.loss, largest.penalty)
        self._compare("max", max_arch, largest, as_max, step)
        weights = list(self.model.parameters()) if self.settings.conflict == "project" else []
        teacher = set_aside(weights)

        # Train the min network to mimic the max network.
        smallest = as_min(min_arch)
        backward("min", smallest.loss, smallest.penalty)
        self._compare("min", min_arch, smallest, as_min, step)

        # Sample random networks between the two, to mimic the max network.
        random_loss = torch.zeros_like(smallest.loss)
        generator = stream(self.seed, "random_policy", step)

        def on_labels(arch: Architecture) -> Tensor:
            return task.loss(self.model(images, arch), labels)

        for _ in range(self.settings.random_networks):
            arch = self._random(generator, allowed, on_labels, step)
            if self.settings.grad_from_random and self._learns(step):
                fraction = self.settings.ghost_fraction
                arch = boundaries.gated(arch, fraction)
            loss = distance(self.model(images, arch), largest.logits)
            backward("random", loss)
            random_loss += loss.detach() / self.settings.random_networks
        self._project(weights, teacher, step)

        scalars = {
            "loss_max": largest.loss,
            "loss_min": smallest.loss,
            "loss_random": random_loss,
            **self._named("max", largest.costs),
            **self._named("min", smallest.costs),
            "penalty_max": largest.penalty,
            "penalty_min": smallest.penalty,
        }
        if task.meter() is None:
            scalars["score_max"] = task.score(largest.logits.detach(), labels).mean()
        return {name: value.detach() for name, value in scalars.items()}

    def _relaxed(self, arch: Architecture) -> list[Tensor]:
        return [budget.cost.relaxed(arch) for budget in self.budgets]

    def _named(self, role: str, costs: Sequence[Tensor]) -> dict[str, Tensor]:
        names = (f"{role} {budget.cost.name}" for budget in self.budgets)
        return dict(zip(names, costs, strict=True))

    def _policy(self, boundary: Boundary) -> Policy:
        return {"max": self.max_policy, "min": self.min_policy}[boundary]

    def _learns(self, step: int) -> bool:
        """Whether the policies get a gradient in this step."""
        return step % self.settings.policy_every == 0

    def _draw(self, boundary: Boundary, step: int) -> Architecture:
        settings = self.settings
        return self._policy(boundary).sample(
            stream(self.seed, f"{boundary}_policy", step),
            settings.gumbel_temperature,
            settings.ghost_fraction,
            learns=self._learns(step) and ESTIMATORS[settings.estimator] is None,
        )

    def _compare(
        self,
        boundary: Boundary,
        arch: Architecture,
        found: _Pass,
        measure: Callable[[Architecture], _Pass],
        step: int,
    ) -> None:
        """Add the policy's gradient, where it is estimated from the losses of two networks."""
        surrogate, policy = ESTIMATORS[self.settings.estimator], self._policy(boundary)
        if surrogate is None or not policy.learned or not self._learns(step):
            return

        def objective(of: _Pass) -> Tensor:
            return of.loss.detach() + self.settings.penalty_weight * of.penalty.detach()

        @torch.no_grad()
        def of_another(other: Architecture) -> Tensor:
            return objective(measure(other))

        generator = stream(self.seed, f"{boundary}_policy_comparison", step)
        surrogate(policy, arch, objective(found), of_another, generator).backward()

    def _random(
        self,
        generator: torch.Generator,
        allowed: Allowed,
        loss: Callable[[Architecture], Tensor],
        step: int,
    ) -> Architecture:
        """A random network to train: a uniform draw, or the choice among some of like cost."""
        settings, space = self.settings, self.model.space
        choose = CHOICES[settings.random_choice]
        if choose is None:
            return space.sample(generator, allowed)
        found = candidates(settings.candidates, space, generator, allowed, self.budgets[0].cost)
        with torch.no_grad():
            losses = torch.stack([loss(arch) for arch in found])
        average([losses], f"step {step}")  # so that all processes choose the same
        return found[int(choose(losses))]

    def _project(
        self, weights: Sequence[nn.Parameter], teacher: Sequence[Tensor | None], step: int
    ) -> None:
        """Add the max network's gradients to its students', without what opposes these."""
        # A projection of means is no mean of projections, so the processes share both parts here.
        students = [p.grad for p in weights if p.grad is not None]
        held = [m for m in teacher if m is not None]
        if students or held:
            average([*students, *held], f"step {step}")
        add_projected(weights, teacher)

    def check(
        self, images: Tensor, labels: Tensor, step: int, scalars: Mapping[str, Tensor]
    ) -> None:
        """Refuse a step whose losses or gradients are not finite, before any optimizer sees them.

        Args:
            images: As given to `step`, which was called before.
            labels: Likewise.
            step: Likewise.
            scalars: What it returned.

        Raises:
            TrainingError: Names the network and the first tensor. Weights and policies are as
                before the step, and all gradients are cleared.
        """
        losses = [scalars[f"loss_{role}"] for role in ROLES]
        largest = nn.utils.get_total_norm(self.gradients, norm_type=math.inf)
        if torch.stack([*losses, self._cut(largest).to(losses[0])]).isfinite().all():
            return
        self._clear()
        try:
            self.step(images, labels, step, after=partial(self._refuse, step))
        finally:
            self._clear()
        raise TrainingError(
            f"step {step}: a loss or gradient was not finite, and it was finite when computed "
            f"again; {_UNCHANGED}. Look for a fault of the machine, or what other ranks say"
        )

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All that optimizers may change, by name: the weights and the logits of the policies."""
        return {
            **dict(self.model.named_parameters()),
            "max_policy": self.max_policy.logits,
            "min_policy": self.min_policy.logits,
        }

    @property
    def gradients(self) -> list[Tensor]:
        """All gradients there are, of weights and policies; no step reaches every weight."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def _refuse(self, step: int, role: str, loss: Tensor) -> None:
        if not loss.isfinite():
            raise TrainingError(
                f"step {step}: the loss of the {role} network is {loss.item()}; {_UNCHANGED}. "
                "Lower train.learning_rate, or check the data"
            )
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            largest = parameter.grad.abs().max()
            if not self._cut(largest).isfinite():
                raise TrainingError(
                    f"step {step}: the {role} network has a gradient of {largest.item()} at "
                    f"{name}; {_UNCHANGED}. Lower train.learning_rate, or give the space "
                    "wider smallest layers: gradients explode in deep networks of few channels"
                )

    def _cut(self, largest: Tensor) -> Tensor:
        """What of a gradient reaches the optimizers; without a limit, what it may come to there."""
        limit = self.settings.clip_value
        return largest * 1e8 if limit is None else largest.clamp(max=limit)

    def _clear(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None


def _total(penalties: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, penalties)


def _own(name: str) -> str:
    """The name of a random stream of this process alone."""
    return f"{name} of rank {rank()}" if rank() else name


_UNCHANGED = "the weights and policies are those before this step"
