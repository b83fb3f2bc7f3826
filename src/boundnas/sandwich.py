"""One step of sandwich sampling with boundary learning: Algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.conflict import projected
from boundnas.cost import Cost
from boundnas.distill import DISTILLATIONS
from boundnas.errors import TrainingError
from boundnas.policy import Policy, SampledArchitecture, allowed_options, random_sample
from boundnas.randomness import stream
from boundnas.ranks import rank
from boundnas.settings import TrainSettings
from boundnas.supernet import Supernet

ROLES = ("max", "min", "random")
After = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Sandwich:
    """What every step shares: the supernet, its two boundary policies, and what is asked of them.

    Args:
        model: The supernet.
        max_policy: Where max networks are drawn from.
        min_policy: Where min networks are drawn from.
        cost: The cost that is penalized.
        cost_range: ``g_L`` and ``g_U`` of Eq. 1, in the cost's own unit.
        settings: Weights and temperatures.
        seed: The run's seed.
    """

    model: Supernet
    max_policy: Policy
    min_policy: Policy
    cost: Cost
    cost_range: tuple[float, float]
    settings: TrainSettings
    seed: int

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

        def backward(role: str, loss: Tensor, penalty: Tensor | None = None) -> None:
            total = loss
            if penalty is not None and penalty.requires_grad:
                total = loss + self.settings.penalty_weight * penalty
            if role == "max" or self.settings.conflict == "sum":
                total.backward()
            else:
                with projected(weights, teacher):
                    total.backward()
            if after is not None:
                after(role, loss)

        lower, upper = self.cost_range
        distance = DISTILLATIONS[self.settings.distillation]
        # Draw a max network and train it with the true labels.
        max_arch = self._draw(self.max_policy, "max_policy", step)
        max_arch = replace(max_arch, noise=stream(self.seed, _own("dropout"), step))
        logits = self.model(images, max_arch)
        max_loss = F.cross_entropy(logits, labels)
        max_cost = self.cost.relaxed(max_arch)
        max_penalty = F.relu(1 - max_cost / upper)  # Eq. 4, relative
        backward("max", max_loss, max_penalty)
        weights = list(self.model.parameters()) if self.settings.conflict == "project" else []
        teacher = {p: p.grad for p in weights if p.grad is not None}

        # Draw a min network to mimic the max network.
        min_arch = self._draw(self.min_policy, "min_policy", step)
        min_loss = distance(self.model(images, min_arch), logits)
        min_cost = self.cost.relaxed(min_arch)
        min_penalty = F.relu(min_cost / lower - 1)  # Eq. 4, relative
        backward("min", min_loss, min_penalty)

        # Sample random networks between the two, to mimic the max network.
        random_loss = torch.zeros_like(min_loss)
        if self.settings.random_networks:
            tau, eq6 = self.settings.tau, self.settings.eq6
            allowed = allowed_options(self.max_policy, self.min_policy, tau, eq6)
            generator = stream(self.seed, "random_policy", step)
            for _ in range(self.settings.random_networks):
                arch = self.model.space.sample(generator, allowed)
                if self.settings.grad_from_random:
                    fraction = self.settings.ghost_fraction
                    arch = random_sample(arch, self.max_policy, self.min_policy, tau, eq6, fraction)
                loss = distance(self.model(images, arch), logits)
                backward("random", loss)
                random_loss += loss.detach() / self.settings.random_networks

        scalars = {
            "loss_max": max_loss,
            "loss_min": min_loss,
            "loss_random": random_loss,
            "accuracy_max": (logits.argmax(-1) == labels).float().mean(),
            "cost_max": max_cost,
            "cost_min": min_cost,
            "penalty_max": max_penalty,
            "penalty_min": min_penalty,
        }
        return {name: value.detach() for name, value in scalars.items()}

    def _draw(self, policy: Policy, name: str, step: int) -> SampledArchitecture:
        settings = self.settings
        return policy.sample(
            stream(self.seed, name, step), settings.gumbel_temperature, settings.ghost_fraction
        )

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


def _own(name: str) -> str:
    """The name of a random stream of this process alone."""
    return f"{name} of rank {rank()}" if rank() else name


_UNCHANGED = "the weights and policies are those before this step"
