import pytest
import torch
from tests.oracle import masked
from tests.spaces import SPACES, images, supernet
from torch.nn import functional as F

from boundnas.cost import MACs
from boundnas.method.policy import BOUNDARIES, initial_policy, point_mass
from boundnas.randomness import stream


def loss_of(model, x, arch):
    """Cross-entropy with labels that are as good as any, summed over the batch."""
    logits = model(x, arch)
    labels = torch.arange(len(x), device=x.device) % logits.shape[1]
    return logits, F.cross_entropy(logits, labels, reduction="sum")


def gradients_of(model, policy, x, seed):
    """Logits, policy gradient and weight gradients of one sampled pass."""
    model.zero_grad()
    policy.zero_grad()
    logits, loss = loss_of(model, x, policy.sample(stream(seed, "gumbel")))
    loss.backward()
    weights = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return logits.detach(), policy.logits.grad, weights


def assert_near(found, expected, tolerance, scale, where):
    error = (found - expected).norm()
    assert error <= tolerance * expected.norm() + 1e-3 * tolerance * scale, where


def both(name, boundary, seed, dtype):
    model = supernet(name).to(dtype)
    start = initial_policy(model.space, boundary, stream(seed, "start"), std=0.07)
    policy, x = start.to(dtype), images(model, 5, seed)
    fast = gradients_of(model, policy, x, seed)
    with masked(model):
        return model.space, fast, gradients_of(model, policy, x, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", SPACES)
def test_the_fast_pass_equals_the_masked_pass(name, boundary, seed):
    space, fast, slow = both(name, boundary, seed, torch.float64)
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-9, atol=1e-11)
    for dimension, found, expected in zip(space.dimensions, fast[1], slow[1], strict=True):
        assert_near(found, expected, 1e-9, slow[1].norm(), dimension.name)
    total = sum(gradient.norm() for gradient in slow[2].values())
    for weight, expected in slow[2].items():
        assert_near(fast[2][weight], expected, 1e-9, total, weight)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", ["mobilenet_v3", "own_network"])
def test_single_precision_keeps_the_policy_gradient(name, boundary):
    space, fast, slow = both(name, boundary, 0, torch.float32)
    kinds = [d.kind for d in space.dimensions]
    for kind in set(kinds):
        rows = [i for i, k in enumerate(kinds) if k == kind]
        assert_near(fast[1][rows], slow[1][rows], 1e-4, slow[1].norm(), kind)


@pytest.mark.parametrize("name", SPACES)
def test_every_option_of_every_dimension_gets_a_gradient(name):
    model = supernet(name).double()
    for boundary in BOUNDARIES:
        gates = relaxed(point_mass(model.space, boundary).mode)
        loss_of(model, images(model, 5), gates)[1].backward()
        for dimension, gate in zip(model.space.dimensions, gates.gates, strict=True):
            if len(dimension) > 1 and is_in_use(dimension, gates):
                assert (gate.grad != 0).all(), f"{dimension.name} at the {boundary} network"


def relaxed(arch, fraction=1.0):
    """``arch`` with gates of its own to differentiate by."""
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).double().requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    return arch.plain.carrying(gates=gates, ghost_fraction=fraction)


def is_in_use(dimension, arch):
    """Whether the layer that an inner width of a MobileNet belongs to is not cut off."""
    stage, _, layer = dimension.name.partition(".layer")
    depth = arch.values.get(f"{stage}.depth")
    return not layer or depth is None or int(layer.split(".")[0]) <= depth


def gate_gradients(model, x, arch, fraction=1.0):
    arch = relaxed(arch, fraction)
    loss_of(model, x, arch)[1].backward()
    return {d.name: g.grad for d, g in zip(arch.space.dimensions, arch.gates, strict=True)}


@pytest.mark.parametrize("seed", range(8))
def test_half_a_batch_of_ghosts_counts_twice(seed):
    model = supernet("sample_wise").double()
    arch = model.space.sample(stream(seed, "architecture"))
    x = images(model, 6, seed)
    found = gate_gradients(model, x, arch, fraction=0.5)
    whole, half = gate_gradients(model, x, arch), half_gradients(model, x, arch)
    for dimension, chosen in zip(model.space.dimensions, arch.indices, strict=True):
        name, options = dimension.name, torch.arange(len(dimension))
        if dimension.kind == "width":  # the active channels are seen on the whole batch
            ghosts = whole[name][chosen] + 2 * (half[name] - half[name][chosen])
            expected = torch.where(options <= chosen, whole[name], ghosts)
        elif dimension.kind == "kernel":  # so are the taps of the active kernel
            expected = torch.where(options <= chosen, whole[name], 2 * half[name])
        else:
            expected = 2 * half[name]
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def half_gradients(model, x, arch):
    """Gate gradients of the loss of the first half of a batch, labels as in the whole."""
    return gate_gradients(model, x[: len(x) // 2], arch)


@pytest.mark.parametrize("fraction", [1e-6, 0.3, 0.5])
@pytest.mark.parametrize("name", SPACES)
def test_a_part_of_the_batch_for_ghosts_changes_no_value_and_no_weight_gradient(name, fraction):
    model = supernet(name).double()
    x, arch = images(model, 5), model.space.sample(stream(0, "architecture"))
    passes = []
    for part in (fraction, 1.0):
        model.zero_grad()
        logits, loss = loss_of(model, x, relaxed(arch, part))
        loss.backward()
        passes.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*passes, rtol=0, atol=0)


@pytest.mark.parametrize("name", SPACES)
def test_gates_leave_the_values_of_the_hard_architecture(name):
    model = supernet(name)
    arch = initial_policy(model.space, "min", stream(0, "start")).sample(stream(0, "gumbel"))
    x = images(model, 3)
    assert torch.equal(model(x, arch), model(x, arch.plain))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", SPACES)
def test_a_point_mass_draws_its_network_and_no_gates(name, boundary):
    space = supernet(name).space
    arch = point_mass(space, boundary).sample(stream(0, "gumbel"))
    assert arch == (space.largest if boundary == "max" else space.smallest)
    assert arch.gates is None
    assert all(arch.gate(d) is None for d in space.dimensions)


def test_the_cost_of_a_supernet_in_double_precision_is_the_same():
    model = supernet("own_network")
    assert MACs(model).reach == MACs(model.double()).reach


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", SPACES)
def test_a_pass_asks_the_device_for_no_value(name, boundary):
    model = supernet(name)
    x, cost = images(model, 5).to("meta"), MACs(model)
    policy = initial_policy(model.space, boundary, stream(0, "start"), std=0.07)
    sample = policy.sample(stream(0, "gumbel")).carrying(ghost_fraction=0.3)
    # On the device "meta" nothing has a value, and asking for one is an error.
    gates = tuple(gate.detach().to("meta").requires_grad_() for gate in sample.gates)
    arch = sample.carrying(gates=gates, noise=stream(0, "noise"))
    _, loss = loss_of(model.to("meta"), x, arch)
    (loss + cost.relaxed(arch)).backward()
    assert all(gate.grad is not None for gate in gates)
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()
