"""What must hold of any network that was made elastic, drawn or of another library."""

import copy
from contextlib import contextmanager

import torch
from tests.costs import RECURRENT
from tests.oracle import masked
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from boundnas import calibrate, extract, guard
from boundnas.convert.normalizing import normalizing
from boundnas.cost import MACs, Parameters
from boundnas.fit.start import check_forward
from boundnas.nested import leaves, mapped
from boundnas.randomness import stream
from boundnas.supernet.extract import random_inputs
from boundnas.supernet.modes import evaluating


def _attention(query, key, value, *args, out_shape=None, **kwargs):
    return sdpa_flop_count(query, key, value)


UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention, **RECURRENT}
"""What PyTorch's counter does not know on the CPU."""


@torch.no_grad()
def largest_is_original(net, model, exact):
    """The largest architecture with the statistics it came with computes what the network does.

    Args:
        net: The network.
        model: What `elasticize` made of it.
        exact: Bit for bit, unless torch's own attention, gates, bilinear layers, instance norms or
            norms of one group are in it, or norms by hand, which are rebuilt; else to rounding.
    """
    rebuilt = nn.MultiheadAttention, nn.GLU, nn.Bilinear, nn.modules.instancenorm._InstanceNorm
    exact = exact and not any(
        isinstance(m, rebuilt) or normalizing(m) or getattr(m, "num_groups", 0) == 1
        for m in net.modules()
    )
    x = random_inputs(model, 3)
    with evaluating(net), evaluating(model), _no_fast_path():
        expected = tensors(called(net, mapped(torch.clone, x)))
        found = tensors(model(mapped(torch.clone, x), model.original))
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        if exact:
            assert torch.equal(f, e), f"they differ by {(f - e).abs().max()}"
        else:
            scale = float(e.abs().max())
            tolerance = {torch.float32: 1e-4, torch.float64: 1e-11}[e.dtype]
            torch.testing.assert_close(f, e, rtol=0, atol=tolerance * scale)


@contextmanager
def _no_fast_path():
    """Within it torch's transformer layers compute in evaluation as they do in training.

    Without gradients they take one fused operator, which rounds otherwise.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def architectures(space, number, seed=0):
    """The smallest, the largest and random ones."""
    drawn = (space.sample(stream(seed, "architecture", i)) for i in range(number))
    return [space.smallest, space.largest, *drawn]


def extracted_is_supernet(model, number=1, seed=0):
    """Extraction is bit for bit, and costs are those counted on the extracted network."""
    macs, parameters = MACs(model), Parameters(model)
    x, calibration = random_inputs(model, 3), random_inputs(model, 6)
    for arch in architectures(model.space, number, seed):
        calibrated = calibrate(model, arch, [calibration])
        net = extract(model, calibrated)
        with evaluating(model), torch.no_grad():
            pairs = zip(tensors(net(x)), tensors(model(x, calibrated)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), f"extraction of {arch}"
        first = mapped(lambda t: t[:1], x)
        with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
            net(first)
        assert counter.get_total_flops() / 2 == macs(arch), f"MACs of {arch}"
        held = {id(p): p.numel() for p in net.parameters()}
        assert sum(held.values()) == parameters(arch), f"parameters of {arch}"


def gradient_is_masked(model, seed=0):
    """Values and the gradient of every option and weight are those of the masked full pass.

    Args:
        model: In double precision.
        seed: Of the architecture.
    """
    model = copy.deepcopy(model).train()
    arch = model.space.sample(stream(seed, "differentiated"))
    fast = gradients(model, arch)
    with masked(model):
        slow = gradients(model, arch)
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-9, atol=1e-10)
    same_for_options(arch, fast[1], slow[1])
    weights = sum(g.norm() for g in slow[2])
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for name, f, e in zip(names, fast[2], slow[2], strict=True):
        assert (f - e).norm() <= 1e-9 * weights + 1e-10, f"gradient of {name}"


def gradient_of_a_part_is_the_whole_s(model, seed=0):
    """On two samples, twice each, half of the batch gives every option the gradient of all of it.

    Args:
        model: In double precision.
        seed: Of the architecture.
    """
    model = copy.deepcopy(model).train()
    arch = model.space.sample(stream(seed, "differentiated"))
    twice = mapped(lambda x: torch.cat([x, x]), random_inputs(model, 2))
    whole, half = (gradients(model, arch, twice, fraction)[1] for fraction in (1.0, 0.5))
    same_for_options(arch, half, whole)


def same_for_options(arch, found, expected):
    """The gradients of every option of every dimension are the same but for rounding."""
    scale = torch.cat(expected).norm()
    for dimension, f, e in zip(arch.space.dimensions, found, expected, strict=True):
        assert (f - e).norm() <= 1e-9 * scale + 1e-10, f"gradient of {dimension.name}: {f}, {e}"


def gradients(model, arch, inputs=None, ghost_fraction=1.0):
    """Loss, and the gradients of every option of every dimension, and of the weights."""
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).double().requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    inputs = random_inputs(model, 4) if inputs is None else inputs
    arch = arch.plain.carrying(gates=gates, ghost_fraction=ghost_fraction)
    outputs = tensors(model(inputs, arch))
    loss = sum(
        (y.sin() * torch.linspace(1, 2, y[0].numel()).to(y).view(y[0].shape)).sum() for y in outputs
    )
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [*gates, *weights], allow_unused=True, materialize_grads=True)
    return loss.detach(), found[: len(gates)], found[len(gates) :]


def trainable(model, ghost_fraction=0.5):
    """It passes what `fit` checks before it trains."""
    guard.check(model, ghost_fraction)
    MACs(model)
    check_forward(model)


def called(net, x):
    """A plain network with a batch, of which tuples are its arguments, and dicts are by name."""
    if isinstance(x, dict):
        return net(**x)
    return net(*x) if isinstance(x, tuple) else net(x)


def tensors(outputs):
    """All tensors of an output."""
    return [y for _, y in leaves(outputs) if isinstance(y, torch.Tensor)]
