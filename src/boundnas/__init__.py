"""BoundNAS: one supernet whose search-space bounds are learned while it trains.

The main job in five calls: build a `Supernet` (your own, or one of `models`), `fit` it,
`search` its front, `extract` a network of the front, `export` it.
"""

from boundnas.engine.entry import enter, is_command

if is_command():
    enter()  # before what takes seconds to import

from boundnas import cost, data, elastic, latency, models, tasks
from boundnas.app.opening import open
from boundnas.convert import Rule, elasticize
from boundnas.data import Data
from boundnas.deploy.export import export
from boundnas.deploy.front import export_front
from boundnas.errors import BoundNASError
from boundnas.fit.observers import Observer, TensorBoard
from boundnas.fit.run import Run
from boundnas.fit.train import fit
from boundnas.search import Front, FrontNetwork, search
from boundnas.search.validation import Validation
from boundnas.settings import SearchSettings, TrainSettings
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.supernet.calibrate import calibrate
from boundnas.supernet.extract import extract
from boundnas.supernet.supernet import Supernet

__all__ = [
    "Architecture",
    "BoundNASError",
    "Data",
    "Dimension",
    "Front",
    "FrontNetwork",
    "Observer",
    "Rule",
    "Run",
    "SearchSettings",
    "SearchSpace",
    "Supernet",
    "TensorBoard",
    "TrainSettings",
    "Validation",
    "calibrate",
    "cost",
    "data",
    "elastic",
    "elasticize",
    "export",
    "export_front",
    "extract",
    "fit",
    "latency",
    "models",
    "open",
    "search",
    "tasks",
]
