"""Parts of other papers' methods, and of Appendix C, as objects that are handed to the step."""

from __future__ import annotations

import torch

from boundnas.cost import Cost
from boundnas.method.variants.alphanet import adaptive_alpha_divergence
from boundnas.method.variants.attentivenas import LikeCosts
from boundnas.method.variants.estimators import measure_valued, score_function
from boundnas.method.variants.nasvit import projected
from boundnas.method.variants.parts import Variants, added, uniform
from boundnas.settings import TrainSettings

DISTANCES = {"task": None, "adaptive_alpha": adaptive_alpha_divergence}
CONFLICTS = {"sum": added, "project": projected}
ESTIMATORS = {
    "straight_through": None,
    "score_function": score_function,
    "measure_valued": measure_valued,
}
PICKS = {"uniform": None, "best_up": torch.argmin, "worst_up": torch.argmax}
"""Which of several candidates is trained, from their losses on the targets."""


def chosen(settings: TrainSettings, cost: Cost) -> Variants:
    """The variants that settings name.

    Args:
        settings: Those of a training.
        cost: By which candidates of like cost are found.
    """
    pick = PICKS[settings.random_choice]
    return Variants(
        DISTANCES[settings.distillation],
        uniform if pick is None else LikeCosts(pick, settings.candidates, cost),
        CONFLICTS[settings.conflict],
        ESTIMATORS[settings.estimator],
        settings.grad_from_random,
    )


__all__ = ["DISTANCES", "ESTIMATORS", "Variants", "chosen"]
