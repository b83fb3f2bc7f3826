"""What can be set, for Python callers and configuration files alike."""

from boundnas.settings.base import Settings
from boundnas.settings.explain import (
    MAX_PROBLEMS,
    Location,
    dotted,
    explain,
    problem_list,
    quoted,
    shown,
)
from boundnas.settings.searching import SearchSettings
from boundnas.settings.sections import (
    CostSettings,
    DataSettings,
    ExportSettings,
    SpaceSettings,
    StageSettings,
    StemSettings,
)
from boundnas.settings.training import PriorSettings, TrainSettings

__all__ = [
    "MAX_PROBLEMS",
    "CostSettings",
    "DataSettings",
    "ExportSettings",
    "Location",
    "PriorSettings",
    "SearchSettings",
    "Settings",
    "SpaceSettings",
    "StageSettings",
    "StemSettings",
    "TrainSettings",
    "dotted",
    "explain",
    "problem_list",
    "quoted",
    "shown",
]
