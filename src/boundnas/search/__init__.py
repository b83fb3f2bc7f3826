"""The search for the Pareto front of accuracy against cost after training (App. A.3)."""

from boundnas.search.evaluator import Evaluator
from boundnas.search.front import search
from boundnas.search.genetic import genetic_search
from boundnas.search.journal import Evaluation, Journal
from boundnas.search.kept import front_of
from boundnas.search.networks import Front, FrontNetwork

__all__ = [
    "Evaluation",
    "Evaluator",
    "Front",
    "FrontNetwork",
    "Journal",
    "front_of",
    "genetic_search",
    "search",
]
