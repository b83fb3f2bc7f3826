"""What can be set, for Python callers and configuration files alike."""

from boundnas.settings.base import OneOrMore, Settings
from boundnas.settings.content import Content
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
from boundnas.settings.searching import Bounds, SearchSettings
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
from boundnas.settings.use import FORMS, OrUse, Use, uses

__all__ = [
    "ALONE",
    "FORMS",
    "MAX_PROBLEMS",
    "Bounds",
    "Content",
    "CostSettings",
    "DataSettings",
    "ExportSettings",
    "Location",
    "OneOrMore",
    "OrUse",
    "PriorSettings",
    "SearchSettings",
    "Settings",
    "SpaceSettings",
    "StageSettings",
    "StemSettings",
    "TrainSettings",
    "Use",
    "dotted",
    "each_once",
    "explain",
    "problem_list",
    "quoted",
    "shown",
    "uses",
]
