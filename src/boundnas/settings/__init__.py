"""What can be set, for Python callers and configuration files alike."""

from boundnas.settings.base import OneOrMore, Settings
from boundnas.settings.explain import (
    ALONE,
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
    each_once,
)
from boundnas.settings.training import PriorSettings, TrainSettings

__all__ = [
    "ALONE",
    "MAX_PROBLEMS",
    "CostSettings",
    "DataSettings",
    "ExportSettings",
    "Location",
    "OneOrMore",
    "PriorSettings",
    "SearchSettings",
    "Settings",
    "SpaceSettings",
    "StageSettings",
    "StemSettings",
    "TrainSettings",
    "dotted",
    "each_once",
    "explain",
    "problem_list",
    "quoted",
    "shown",
]
