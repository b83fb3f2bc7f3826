"""Labelled images: where they come from, how they are split, batched and augmented."""

from boundnas.data.augment import augment, normalize
from boundnas.data.fashion import fashion_mnist
from boundnas.data.folder import image_folder
from boundnas.data.handwritten import digits
from boundnas.data.image_data import ImageData, assemble, channel_statistics
from boundnas.data.order import TrainingOrder, training_batch
from boundnas.data.registry import LOADERS, load
from boundnas.data.source import ImageFiles, InMemory, Source, Subset, batches
from boundnas.data.split import carve

__all__ = [
    "LOADERS",
    "ImageData",
    "ImageFiles",
    "InMemory",
    "Source",
    "Subset",
    "TrainingOrder",
    "assemble",
    "augment",
    "batches",
    "carve",
    "channel_statistics",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load",
    "normalize",
    "training_batch",
]
