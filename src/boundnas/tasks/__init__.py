"""Tasks that come with BoundNAS; one of your own is a subclass of `Task`, or `Own`."""

from boundnas.task import Classification, Meter, Task
from boundnas.tasks.labels import MultiLabel
from boundnas.tasks.own import Own
from boundnas.tasks.regression import Regression
from boundnas.tasks.segmentation import Segmentation
from boundnas.tasks.tokens import NextToken

__all__ = [
    "Classification",
    "Meter",
    "MultiLabel",
    "NextToken",
    "Own",
    "Regression",
    "Segmentation",
    "Task",
]
