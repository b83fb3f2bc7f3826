"""The table of costs that every law runs over; a new one joins by adding a line."""

import copy
import importlib.util
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests.memory import held
from tests.times import counted_nanoseconds, latency
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boundnas import export
from boundnas.cost import Bytes, MACs, Parameters, PeakMemory


def example(name):
    """A file of the examples as a module."""
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


own_cost = example("own_cost")


def _steps(x, of_input, of_state, *args, out_shape=None, **kwargs):
    """What a layer of an LSTM multiplies, in each of its steps."""
    return 2 * x[0] * x[1] * (of_input.numel() + of_state.numel())


RECURRENT = {torch.ops.aten.mkldnn_rnn_layer: _steps}
"""What it passes over."""


def counted_macs(net, x):
    """MACs of one image by PyTorch's counter."""
    net = copy.deepcopy(net).requires_grad_(False)  # it fails at views of weights that ask for one
    # It counts attention only where it is computed by products of matrices.
    with (
        FlopCounterMode(display=False, custom_mapping=RECURRENT) as counter,
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
    ):
        net(x)
    return counter.get_total_flops() // 2


def counted_parameters(net, x):
    return sum(p.numel() for p in net.parameters())


def exported(net, x):
    """Bytes of the file that export writes."""
    with TemporaryDirectory() as folder:
        return export(net, Path(folder, "net.safetensors")).stat().st_size


def energy(net, x):
    return 46 * counted_macs(net, x) + 6400 * counted_parameters(net, x)


COSTS = {  # a cost, and what it is counted to be of an extracted network and one image
    "macs": (MACs, counted_macs),
    "parameters": (Parameters, counted_parameters),
    "bytes": (Bytes, exported),
    "peak memory": (PeakMemory, held),
    "latency": (latency, counted_nanoseconds),
    "of one's own": (own_cost.Energy, energy),
}
