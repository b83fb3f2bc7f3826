"""One step of sandwich sampling with boundary learning: Algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundnas.cost import Budget
from boundnas.engine.ranks import rank
from boundnas.method.batch import Part, gathering, parts_of
from boundnas.method.mixing import mixture
from boundnas.method.policy import BOUNDARIES, Boundaries, Boundary, Policy
from boundnas.method.precision import reduced
from boundnas.method.variants.parts import Objective, Variants
from boundnas.nested import count, leaves
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.space import Allowed, Architecture
from boundnas.supernet.supernet import Supernet
from boundnas.task import Task

ROLES = ("max", "min", "random")

FEWEST = 4
"""Samples that serve the options not chosen at least: a norm over fewer is mostly chance."""

After = Callable[[str, Tensor], None]
Loss = Callable[[Architecture, int], tuple[Tensor, Tensor]]
"""Outputs of an architecture on a part of the batch of the step, and its loss."""


class Visit(NamedTuple):
    """What one network of a boundary comes to: outputs by part, loss, costs and their penalty."""

    outputs: list[Tensor]
    loss: Tensor
    costs: list[Tensor]
    penalty: Tensor


@dataclass(frozen=True)
class Sandwich:
    """What every step shares: the supernet, its two boundaries, and what is asked of them.

    Args:
        model: The supernet.
        task: What the networks are to do.
        boundaries: Where max and min networks are drawn from.
        budgets: The costs that are penalized, each with its range.
        settings: Weights and temperatures.
        seed: The run's seed.
        variants: Where it departs from Algorithm 1.
    """

    model: Supernet
    task: Task
    boundaries: Boundaries
    budgets: Sequence[Budget]
    settings: TrainSettings
    seed: int
    variants: Variants

    def step(
        self, inputs: Any, targets: Tensor, step: int, after: After = lambda role, loss: None
    ) -> dict[str, Tensor]:
        """Add the gradients of one step to weights and policies (Algorithm 1).

        Args:
            inputs: A batch as the model takes it, such as images of shape ``(N, C, H, W)``.
            targets: A batch as the task takes it, such as class numbers of shape ``(N,)``.
            step: Number of the step; with the seed it fixes every draw.
            after: Called when a network's gradients were added, with its role and its loss.

        Returns:
            Scalars for the log, detached.
        """
        distance = self.variants.distance or self.task.distance
        # All that the policies decide is read off at once: a device waits for the host here only.
        max_arch, min_arch = (self._draw(boundary, step) for boundary in BOUNDARIES)
        allowed = self.boundaries.allowed if self.settings.random_networks else ()
        mixed = mixture(self.settings, self.seed, step)
        parts = parts_of(inputs, targets, self.settings.accumulate, mixed)

        def with_targets(arch: Architecture, number: int) -> tuple[Tensor, Tensor]:
            outputs = self._answers(parts[number].inputs, arch)
            return outputs, parts[number].over_targets(self.task.loss, outputs)

        def with_targets_and_noise(arch: Architecture, number: int) -> tuple[Tensor, Tensor]:
            noise = stream(self.seed, _own("dropout", number), step)
            return with_targets(arch.carrying(noise=noise), number)

        def with_teacher(arch: Architecture, number: int) -> tuple[Tensor, Tensor]:
            outputs = self._answers(parts[number].inputs, arch)
            return outputs, distance(outputs, largest.outputs[number])

        # Train the max network with the true targets.
        largest = self._train("max", max_arch, with_targets_and_noise, step, after)
        with self.variants.conflict(self.model.parameters(), f"step {step}"):
            # Train the min network to mimic the max network.
            smallest = self._train("min", min_arch, with_teacher, step, after)
            # Train random networks between the two boundaries to mimic it too.
            random_loss = torch.zeros_like(smallest.loss)
            for arch in self._between(allowed, with_targets, step):
                loss = self._over_parts(arch, with_teacher)[1]
                after("random", loss)
                random_loss += loss / self.settings.random_networks
        return self._scalars(largest, smallest, random_loss, parts)

    def _learns(self, step: int) -> bool:
        """Whether the policies get a gradient in this step."""
        return step % self.settings.policy_every == 0

    def _draw(self, boundary: Boundary, step: int) -> Architecture:
        """An architecture of a boundary, with gates where its policy learns through them."""
        return self._policy(boundary).sample(
            stream(self.seed, f"{boundary}_policy", step),
            self.settings.gumbel_temperature,
            learns=self._learns(step) and self.variants.surrogate is None,
        )

    def _policy(self, boundary: Boundary) -> Policy:
        return dict(self.boundaries.items())[boundary]

    def _train(
        self, boundary: Boundary, arch: Architecture, loss: Loss, step: int, after: After
    ) -> Visit:
        """Add the gradients of a boundary's network to the weights, and to its policy."""
        found = self._visit(boundary, arch, loss)
        after(boundary, found.loss)
        if self.variants.surrogate and self._policy(boundary).learned and self._learns(step):
            self._compare(boundary, arch, found, loss, step)
        return found

    def _visit(self, boundary: Boundary, arch: Architecture, loss: Loss) -> Visit:
        """What a boundary's network comes to; see `_over_parts` for gradients."""
        held: list[tuple[list[Tensor], Tensor]] = []

        def penalized(own: Architecture) -> Tensor:
            costs = [budget.cost.relaxed(own) for budget in self.budgets]
            pairs = zip(self.budgets, costs, strict=True)
            hinges = (b.unused(c) if boundary == "max" else b.excess(c) for b, c in pairs)
            held.append((costs, reduce(torch.add, hinges)))
            return self.settings.penalty_weight * held[0][1]

        outputs, value = self._over_parts(arch, loss, penalized)
        return Visit(outputs, value, *held[0])

    def _answers(self, inputs: Any, arch: Architecture) -> Tensor:
        """Outputs of a network, in float32 whatever it computes in."""
        arch = arch.carrying(
            ghost_fraction=whole_samples(self.settings.ghost_fraction, count(inputs)),
            recomputes=self.settings.gradient_checkpointing,
        )
        if self.settings.precision == "float32":
            outputs: Tensor = self.model(inputs, arch)
            return outputs
        with reduced(self.settings, next(leaves(inputs))[1].device):
            outputs = self.model(inputs, arch)
        return outputs.float()

    def _over_parts(
        self,
        arch: Architecture,
        loss: Loss,
        penalized: Callable[[Architecture], Tensor] | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Outputs of a network by part of the batch, and its loss: the mean over the parts.

        Gradients are added to weights and policies, unless they are switched off.

        Args:
            arch: The network.
            loss: Its loss on a part.
            penalized: What is added to the loss, once, for the sake of gradients alone.
        """
        outputs, values = list[Tensor](), list[Tensor]()
        with gathering(arch, self.settings.accumulate) as own:
            for number in range(self.settings.accumulate):
                found, value = loss(own, number)
                total = value = value / self.settings.accumulate
                if number == 0 and penalized is not None:
                    total = value + penalized(own)
                if torch.is_grad_enabled():
                    with reduced(self.settings, value.device):
                        total.backward()
                outputs.append(found.detach())
                values.append(value.detach())
        return outputs, torch.stack(values).sum()

    def _compare(
        self, boundary: Boundary, arch: Architecture, found: Visit, loss: Loss, step: int
    ) -> None:
        """Add the policy's gradient, where it is estimated from the losses of two networks."""
        assert self.variants.surrogate is not None

        def objective(of: Visit) -> Tensor:
            return of.loss.detach() + self.settings.penalty_weight * of.penalty.detach()

        @torch.no_grad()
        def of_another(other: Architecture) -> Tensor:
            return objective(self._visit(boundary, other, loss))

        policy = self._policy(boundary)
        generator = stream(self.seed, f"{boundary}_policy_comparison", step)
        self.variants.surrogate(policy, arch, objective(found), of_another, generator).backward()

    def _between(self, allowed: Allowed, loss: Loss, step: int) -> Iterator[Architecture]:
        """The random networks of a step, each drawn when the one before was trained."""
        generator = stream(self.seed, "random_policy", step)
        draw = partial(self.model.space.sample, generator, allowed)
        of_targets: Objective = lambda arch: self._over_parts(arch, loss)[1]  # noqa: E731
        for _ in range(self.settings.random_networks):
            arch = self.variants.choose(draw, of_targets, f"step {step}")
            if self.variants.gated_random and self._learns(step):
                arch = self.boundaries.gated(arch)
            yield arch

    def _named(self, boundary: Boundary, costs: Sequence[Tensor]) -> dict[str, Tensor]:
        names = (f"{boundary} {budget.cost.name}" for budget in self.budgets)
        return dict(zip(names, costs, strict=True))

    def _scalars(
        self, largest: Visit, smallest: Visit, random_loss: Tensor, parts: Sequence[Part]
    ) -> dict[str, Tensor]:
        scalars = {
            "loss_max": largest.loss,
            "loss_min": smallest.loss,
            "loss_random": random_loss,
            **self._named("max", largest.costs),
            **self._named("min", smallest.costs),
            "penalty_max": largest.penalty,
            "penalty_min": smallest.penalty,
        }
        if self.task.meter() is None:
            pairs = zip(parts, largest.outputs, strict=True)
            scores = [part.over_targets(self.task.score, outputs) for part, outputs in pairs]
            scalars["score_max"] = torch.cat(scores).mean()
        return {name: value.detach() for name, value in scalars.items()}


def whole_samples(fraction: float, number: int) -> float:
    """The part of a batch that is whole samples: at least `FEWEST`, and the whole of fewer.

    Args:
        fraction: The part that is asked for.
        number: Of samples in the batch.

    Examples:
        >>> whole_samples(1 / 16, 100), whole_samples(1 / 16, 16), whole_samples(1 / 16, 3)
        (0.07, 0.25, 1.0)
    """
    return min(number, max(FEWEST, math.ceil(fraction * number))) / number


def _own(name: str, part: int) -> str:
    """The name of a random stream of a part of the batch of this process alone."""
    name = f"{name} of part {part}" if part else name
    return f"{name} of rank {rank()}" if rank() else name
