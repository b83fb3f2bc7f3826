"""What the laws of latency run over: every kind of supernet, and times that are exact."""

from functools import cache

from tests.networks import NETWORKS, network
from tests.spaces import SPACES, images, supernet

from boundnas import calibrate, elasticize, extract

MODELS = [*SPACES, *(f"elasticized {name}" for name in NETWORKS if not name.startswith("vgg "))]
"""Names of supernets: those of the table of spaces, and what plain networks were made into."""


@cache
def latency_model(name):
    """A supernet of the table; not to be changed."""
    if name in SPACES:
        return supernet(name)
    return elasticize(*network(name.removeprefix("elasticized ")))


def extracted(model, arch):
    """The plain network of an architecture, with statistics of noise."""
    return extract(model, calibrate(model, arch, [images(model, 4)]))
