"""A fuzz of forwards: whatever is drawn is right in all respects or refused before training."""

import torch
from tests.forwards import Drawn
from tests.oracle import masked
from tests.spaces import images, seeded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from boundnas import calibrate, extract, guard
from boundnas.cost import MACs
from boundnas.errors import BoundNASError
from boundnas.fit.start import check_forward
from boundnas.randomness import stream


def gradients(model, arch):
    """Of every option of every dimension, and of the weights."""
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).double().requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    arch = arch.plain.carrying(gates=gates)
    loss = model(images(model, 4), arch).square().sum()
    inputs = [*gates, *model.parameters()]
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


def is_right(model):
    """Assert that gradients, extraction and costs of a drawn network are what they should be."""
    space = model.space
    arch = space.sample(stream(0, "extracted"))
    calibrated = calibrate(model, arch, [images(model, 8)])
    net, x = extract(model, calibrated), images(model, 2, seed=1)
    with torch.no_grad():
        assert torch.equal(net(x), model.eval()(x, calibrated)), "extraction"
    with FlopCounterMode(display=False) as counter:
        net(x[:1])
    assert counter.get_total_flops() / 2 == MACs(model)(arch), "MACs"
    model.double().train()
    arch = space.sample(stream(0, "differentiated"))
    found = gradients(model, arch)
    with masked(model):
        expected = gradients(model, arch)
    scale = max(float(e.abs().max()) for e in expected)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-9 * scale)


def verdict(seed):
    """Whether a drawn supernet is accepted; it is right then. Else why not."""
    model = seeded(lambda: Drawn(seed), seed)
    try:
        guard.check(model)
        MACs(model)
        check_forward(model)
    except BoundNASError as error:
        return model, str(error)
    is_right(model)
    return model, None


def test_every_forward_is_right_or_refused_by_name(full, figure):
    number = 240 if full else 60
    accepted = 0
    for seed in range(number):
        try:
            model, refusal = verdict(seed)
        except Exception as error:
            model = seeded(lambda s=seed: Drawn(s), seed)
            raise AssertionError(f"seed {seed}, {' / '.join(model.steps)}: {error}") from error
        accepted += refusal is None
        assert model.sound or refusal is not None, f"{seed}: {model.steps} was accepted"
        # A step in place may change what autograd needs of the one before.
        may_be = not model.sound or refusal is None or "inplace operation" in refusal
        assert may_be, f"{seed}: {model.steps} was refused: {refusal}"
    assert number / 3 < accepted < number
    figure(f"{number} forwards: {accepted} right, {number - accepted} refused by name, 0 wrong")
