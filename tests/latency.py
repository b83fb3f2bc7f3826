"""What the laws of latency run over: every kind of supernet, and times that are exact."""

from functools import cache

from tests.networks import network
from tests.spaces import SPACES, images, supernet

from boundnas import calibrate, elasticize, extract

MODELS = [
    "convnext", "resnet1d", "resnet", "mobilenet_v3", "own_network", "sample_wise", "tokens", "vit",
    "attentive_nas", "elasticized resnet", "elasticized mobile", "elasticized dense",
    "elasticized grouped", "elasticized convnext", "elasticized attention of pixels",
    "elasticized torch's attention", "elasticized upwards", "elasticized mixer",
    "elasticized text", "elasticized mixed",
]  # fmt: skip
"""Supernets of the table of spaces, and what plain networks were made into, of every kind."""


@cache
def latency_model(name):
    """A supernet of the table; not to be changed."""
    if name in SPACES:
        return supernet(name)
    return elasticize(*network(name.removeprefix("elasticized ")))


def extracted(model, arch):
    """The plain network of an architecture, with statistics of noise."""
    return extract(model, calibrate(model, arch, [images(model, 4)]))
