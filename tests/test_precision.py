"""Training in bfloat16: near to float32 in every layer, what is kept in float32, where refused."""

from functools import partial

import pytest
import torch
from tests.layers import LAYERS, chain
from tests.small import COST_RANGE, batch, few_digits, mobilenet
from tests.spaces import SPACES, images, seeded, supernet
from tests.test_sandwich import SEED, STEP, sandwich, sandwich_of
from torch.nn import functional as F

from boundnas import Dimension, SearchSpace, TrainSettings, elastic, fit
from boundnas.cost import MACs
from boundnas.elastic import native
from boundnas.elastic.pointwise import inner_product, input_products, weight_products
from boundnas.errors import TrainingError
from boundnas.fit import start
from boundnas.fit.guard import Guard
from boundnas.method.precision import check_precision

SHALLOW = ("own_stages", "own_network", "sample_wise", "tokens")
"""Of the others, deep, narrow and untrained, any rounding grows to the size of the gradient."""

NEAR = {name: partial(supernet, name) for name in SHALLOW}
NEAR |= {name: partial(seeded, partial(chain, name)) for name in LAYERS}


def steps_of(model, precision):
    """The steps of a supernet from a flat start."""
    smallest, largest = MACs(model).reach
    settings = TrainSettings(
        steps=12, start_std=1e-3, start_temperature=1.0, precision=precision, random_networks=1
    )
    return sandwich_of(model, settings, (0.5 * smallest, 2 * largest), SEED)


def gradients(s):
    held = Guard(s, None).parameters
    return {n: p.grad.flatten() for n, p in held.items() if p.grad is not None}


def cosine(one, other):
    return float(F.cosine_similarity(one.double(), other.double(), dim=0))


def both(make):
    """A step in float32 and one in bfloat16: scalars and gradients of each."""
    for precision in ("float32", "bf16"):
        s = steps_of(make(), precision)
        x = images(s.model, 24)
        classes = s.model(x, s.model.space.largest).shape[1]
        scalars = s.step(x, torch.arange(24) % classes, STEP)
        yield scalars, gradients(s)


@pytest.mark.parametrize("name", NEAR)
def test_a_step_is_near_to_one_in_float32(name):
    (expected, exact), (found, near) = both(NEAR[name])
    assert float(found["loss_max"]) == pytest.approx(float(expected["loss_max"]), rel=0.02)
    assert near.keys() == exact.keys()
    assert cosine(exact["max_policy"], near["max_policy"]) > 0.99
    weights = [torch.cat([g[n] for n in g if "policy" not in n]) for g in (exact, near)]
    assert cosine(*weights) > 0.95
    assert not torch.equal(*weights), "it does compute in bfloat16"


@pytest.mark.parametrize("name", SPACES)
def test_draws_and_costs_are_those_of_float32_and_so_are_the_types(name):
    (expected, exact), (found, near) = both(partial(supernet, name))
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert found[key].isfinite()
        assert found[key] == value or "macs" not in key
    assert near.keys() == exact.keys()
    assert {g.dtype for g in near.values()} == {torch.float32}


def test_recurrent_layers_compute_in_float32_as_not_every_processor_has_them_in_less():
    layer = seeded(partial(elastic.Recurrent, "lstm", 4, 6))
    arch = SearchSpace([Dimension("w", (1,))]).largest
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 3, 4).bfloat16(), arch).dtype == torch.float32


def test_losses_and_teachers_see_float32_outputs(monkeypatch):
    s, (inputs, labels), seen = sandwich(precision="bf16"), batch(), []
    task = type(s.task)
    loss, distance = task.loss, task.distance
    s.model.register_forward_hook(lambda *given: seen.append(("answers", given[-1].dtype)))
    monkeypatch.setattr(
        task, "loss", lambda self, o, t: seen.append(("loss", o.dtype)) or loss(self, o, t)
    )
    monkeypatch.setattr(
        task,
        "distance",
        lambda self, a, b: seen.append(("pair", a.dtype, b.dtype)) or distance(self, a, b),
    )
    s.step(inputs, labels, STEP)
    assert ("answers", torch.bfloat16) in seen
    assert ("loss", torch.float32) in seen
    assert ("pair", torch.float32, torch.float32) in seen
    assert not any(torch.bfloat16 in each[1:] for each in seen if each[0] != "answers")


def test_the_compiled_kernels_leave_a_step_in_bfloat16_to_torch(monkeypatch):
    called = []
    monkeypatch.setattr(native, "call", lambda name, *_: called.append(name))
    inputs, labels = batch()
    sandwich(precision="bf16").step(inputs, labels, STEP)
    assert called == []


def test_what_gates_learn_from_is_summed_in_float32():
    noise = torch.Generator().manual_seed(0)
    g, x = (torch.randn(64, 6, generator=noise).bfloat16() for _ in range(2))
    w, table = torch.randn(6, 6, generator=noise), torch.ones(3, 6).tril()
    with torch.autocast("cpu", torch.bfloat16):
        found = weight_products(w, w.roll(1, 0), table, (1,)), input_products(g, x, w, table, 1.0)
        inner_product(g, x, 2.0, z := torch.zeros(()))
    of_weights = table.double() @ (w.double() * w.roll(1, 0).double()).sum(0)
    torch.testing.assert_close(found[0].double(), of_weights, rtol=1e-6, atol=1e-6)
    products = (g.double().T @ x.double()) * w.double()
    torch.testing.assert_close(
        found[1].double(), table.double() @ products.sum(0), rtol=0.02, atol=0.1
    )
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(
        z.double(), 2 * (g.double() * x.double()).sum(), rtol=1e-5, atol=1e-5
    )


def test_only_training_computes_in_bfloat16():
    settings = TrainSettings(steps=3, batch_size=16, precision="bf16")
    run = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings)
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    inputs, _ = batch()
    run.model.train()
    assert run.model(inputs, run.model.space.largest).dtype == torch.float32


def test_a_device_without_bfloat16_is_refused(monkeypatch):
    asked, usual = (TrainSettings(steps=1, precision=p) for p in ("bf16", "float32"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    for device in ("cuda", "meta"):
        with pytest.raises(TrainingError, match=f"precision = bf16: {device} does not compute"):
            check_precision(asked, torch.device(device))
        check_precision(usual, torch.device(device))
    check_precision(asked, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    check_precision(asked, torch.device("cuda"))


def test_fit_asks_before_training(monkeypatch):
    def refuse(settings, device):
        raise TrainingError(f"{settings.precision} on {device}")

    monkeypatch.setattr(start, "check_precision", refuse)
    with pytest.raises(TrainingError, match="bf16 on cpu"):
        fit(mobilenet(), few_digits(), cost_range=COST_RANGE,
            settings=TrainSettings(steps=1, precision="bf16"))  # fmt: skip
