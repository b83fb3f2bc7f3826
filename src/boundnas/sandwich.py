"""One step of sandwich sampling with boundary learning: Algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.cost import Cost
from boundnas.distill import kl_divergence
from boundnas.errors import TrainingError
from boundnas.policy import Policy, SampledArchitecture, allowed_options
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.supernet import Supernet


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

    def step(self, images: Tensor, labels: Tensor, step: int) -> dict[str, Tensor]:
        """Add the gradients of one step to weights and policies (Algorithm 1).

        Args:
            images: Normalized images, shape ``(N, C, H, W)``.
            labels: Class numbers, shape ``(N,)``.
            step: Number of the step; with the seed it fixes every draw.

        Returns:
            Scalars for the log, detached.

        Raises:
            TrainingError: A loss is not finite; weights and policies are as before the step.
        """
        lower, upper = self.cost_range
        # Draw a max network and train it with the true labels.
        max_arch = self._draw(self.max_policy, "max_policy", step)
        max_arch = replace(max_arch, noise=stream(self.seed, "dropout", step))
        logits = self.model(images, max_arch)
        max_loss = F.cross_entropy(logits, labels)
        max_cost = self.cost.relaxed(max_arch)
        max_penalty = F.relu(1 - max_cost / upper)  # Eq. 4, relative
        self._backward(max_loss, max_penalty, "max", step)

        # Draw a min network to mimic the max network.
        min_arch = self._draw(self.min_policy, "min_policy", step)
        min_loss = kl_divergence(self.model(images, min_arch), logits)
        min_cost = self.cost.relaxed(min_arch)
        min_penalty = F.relu(min_cost / lower - 1)  # Eq. 4, relative
        self._backward(min_loss, min_penalty, "min", step)

        # Sample random networks between the two, to mimic the max network.
        random_loss = torch.zeros_like(min_loss)
        if self.settings.random_networks:
            tau, eq6 = self.settings.tau, self.settings.eq6
            allowed = allowed_options(self.max_policy, self.min_policy, tau, eq6)
            generator = stream(self.seed, "random_policy", step)
            for _ in range(self.settings.random_networks):
                arch = self.model.space.sample(generator, allowed)
                loss = kl_divergence(self.model(images, arch), logits)
                self._backward(loss, None, "random", step)
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

    def _backward(self, loss: Tensor, penalty: Tensor | None, role: str, step: int) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss of the {role} network is {loss.item()}; the weights and "
                "policies are those before this step. Lower train.learning_rate, or check the data"
            )
        if penalty is not None and penalty.requires_grad:
            loss = loss + self.settings.penalty_weight * penalty
        loss.backward()
