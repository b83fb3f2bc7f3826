"""How a trained supernet is searched."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field

from boundnas.settings.base import Settings

Bounds = Literal["learned", "whole"]
"""Which part of the space is searched."""


class SearchSettings(Settings):
    """How sub-networks are searched after training (Appendix A.3)."""

    method: Literal["genetic", "nsga2", "tpe"] = Field(
        default="genetic",
        description="the paper's genetic search, or as many networks by Optuna's NSGA-II or TPE",
    )
    initial: int = Field(
        default=256, ge=1, le=10**6, description="architectures drawn to begin with"
    )
    rounds: int = Field(default=20, ge=0, le=10**5, description="rounds of crossover and mutation")
    crossovers: int = Field(
        default=128, ge=0, le=10**6, description="children of two parents per round"
    )
    mutations: int = Field(
        default=128, ge=0, le=10**6, description="mutated architectures per round"
    )
    mutation_probability: float = Field(
        default=0.1, gt=0, le=1, description="chance that a mutation changes a dimension"
    )
    bounds: Bounds = Field(
        default="learned", description="search between the learned boundaries, or the whole space"
    )
    calibration_images: int = Field(
        default=2048,
        ge=2,
        le=10**8,
        description="training images that BatchNorm is recalibrated on",
    )
    batch_size: int = Field(
        default=128,
        ge=2,
        le=65_536,
        description="images that calibration normalizes together; twice as many, or more small "
        "ones, are classified at once",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="networks measured, and later exported, at a time on the CPU, each in a "
        "process with one thread; null takes the number of threads, at most 8; results do not "
        "depend on it",
    )
    screen: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="part of the validation images that candidates are screened on; what would be "
        "on the front is measured on all; null measures every candidate on all",
    )

    _retired: ClassVar = MappingProxyType({"give_up": None})
