"""What the laws of latency run over: every kind of supernet, and times that are exact."""

from contextlib import contextmanager
from functools import cache

from tests.networks import network
from tests.spaces import SPACES, images, supernet
from torch import fx

from boundnas import calibrate, elasticize, extract
from boundnas.latency import runtimes

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


class Fake(runtimes.Runtime):
    """A runtime with a clock of its own, in which everything takes a known time.

    Every call takes 5,000 ns by itself, and `node` of every node of the network's graph. The clock
    stands still between calls.
    """

    name = "fake"
    version = "1"

    def __init__(self, threads=1):
        super().__init__(threads)
        self.now = 0
        self.calls = 0

    def load(self, net, inputs):
        takes = self.takes(net)
        return lambda: self.spend(takes)

    def load_file(self, content, batch):
        return lambda: self.spend(len(content) * batch)

    def takes(self, net):
        """The nanoseconds of a network."""
        return 5_000 + self.nodes(net)

    def nodes(self, net):
        """Those of its nodes."""
        if not isinstance(net, fx.GraphModule):
            return sum(map(self.nodes, net.children()))
        return sum(
            100 + 10 * sum(p.numel() for p in net.get_submodule(node.target).parameters())
            for node in net.graph.nodes
            if node.op == "call_module"
        )

    def spend(self, nanoseconds):
        """Let so much time pass."""
        self.now += nanoseconds
        self.calls += 1

    def clock(self):
        return self.now


@contextmanager
def registered(runtime):
    """Within it the runtime is known."""
    runtimes.register(runtime)
    try:
        yield
    finally:
        del runtimes.RUNTIMES[runtime.name]
