"""The search for the Pareto front of accuracy against cost after training (App. A.3)."""

from boundnas.search.evaluator import Evaluator
from boundnas.search.front import Front, FrontNetwork, search
from boundnas.search.genetic import genetic_search
from boundnas.search.journal import Evaluation, Journal

__all__ = [
    "Evaluation",
    "Evaluator",
    "Front",
    "FrontNetwork",
    "Journal",
    "genetic_search",
    "search",
]
