"""Data of any kind, and labelled images: where they come from, how they are split and drawn."""

from boundnas.data.augment import augment, normalize
from boundnas.data.cifar import cifar10, cifar100
from boundnas.data.data import Data
from boundnas.data.decoding import Decoding
from boundnas.data.downsampled import imagenet_d
from boundnas.data.fashion import fashion_mnist
from boundnas.data.folder import image_folder
from boundnas.data.handwritten import digits
from boundnas.data.ilsvrc import imagenet
from boundnas.data.image_data import ImageData, assemble, channel_statistics
from boundnas.data.order import TrainingOrder, training_batch
from boundnas.data.registry import LOADERS, load
from boundnas.data.source import ImageFiles, InMemory, Source, Subset, batches, random_crops
from boundnas.data.split import carve

Samples = ImageData | Data
"""What `fit` and `search` take."""

__all__ = [
    "LOADERS",
    "Data",
    "Decoding",
    "ImageData",
    "ImageFiles",
    "InMemory",
    "Samples",
    "Source",
    "Subset",
    "TrainingOrder",
    "assemble",
    "augment",
    "batches",
    "carve",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "image_folder",
    "imagenet",
    "imagenet_d",
    "load",
    "normalize",
    "random_crops",
    "training_batch",
]
