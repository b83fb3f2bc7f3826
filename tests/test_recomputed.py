"""Gradient checkpointing: less memory, and every bit of a training as it would be."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.faults import Killed
from tests.networks import network
from tests.small import COST_RANGE, batch, digest, few_digits, mobilenet
from tests.spaces import images, seeded, supernet
from tests.test_replay import rerun  # noqa: F401  # a fixture
from tests.test_sandwich import STEP, sandwich
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import boundnas as bn
from boundnas import Supernet, TrainSettings, elastic, fit
from boundnas.elastic import recomputed
from boundnas.engine import tuning
from boundnas.errors import SpaceError
from boundnas.fit import loop
from boundnas.fit.guard import Guard
from boundnas.fit.replay import replayed
from boundnas.method.policy import initial_policy
from boundnas.randomness import stream

CONVERTED = ("torch's attention", "text")
IN_SPACES = ("mobilenet_v3", "own_stages", "own_network", "sample_wise", "vit", "attentive_nas")
MODELS = {name: partial(supernet, name) for name in IN_SPACES}
MODELS |= {name: partial(seeded, lambda n=name: bn.elasticize(*network(n))) for name in CONVERTED}
"""Convolutions, norms, drops, choices, stages in stages, attention, and what was converted."""

OPTIONS = {
    "as it comes": {},
    "ghosts of a part": {"ghost_fraction": 0.25},
    "in parts": {"accumulate": 2},
    "bfloat16": {"precision": "bf16"},
    "random networks teach the policies": {"grad_from_random": True},
    "conflicts projected": {"conflict": "project"},
    "the best of several": {"random_choice": "best_up"},
    "score function": {"estimator": "score_function"},
    "fixed boundaries": {"learn": "none"},
}


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def calls(monkeypatch):
    """How many layers were called, and how many again."""
    counted, call = [0, 0], recomputed._Twice.__call__

    def noted(self):
        counted[self.again] += 1
        return call(self)

    monkeypatch.setattr(recomputed._Twice, "__call__", noted)
    return counted


def passed(model, recomputes):
    """What two training passes give and add up to: one with gates and noise, one with neither."""
    model, found = model.train(), []
    policy = initial_policy(model.space, "max", stream(0, "start"), std=0.07)
    archs = [policy.sample(stream(0, "gumbel")).carrying(noise=stream(0, "noise"))]
    archs += [model.space.sample(stream(0, "plain"))]
    for arch in archs:
        y = model(images(model, 5), arch.carrying(recomputes=recomputes))
        y.sin().sum().backward()
        found.append(y.detach())
    named = {"gates": policy.logits, **dict(model.named_parameters())}
    return {"outputs": torch.cat(found), **{n: p.grad for n, p in named.items()}}


def check_same(expected, found):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] is value or torch.equal(found[name], value), name


@pytest.mark.parametrize("name", MODELS)
def test_passes_add_the_same_bytes(name, calls):
    expected = passed(MODELS[name](), False)
    assert calls == [0, 0]
    found = passed(MODELS[name](), True)
    check_same(expected, found)
    assert calls[0] == calls[1] > 0
    assert expected["gates"].abs().sum() > 0


def step(**options):
    """Scalars and gradients of a step."""
    s = sandwich(batch_size=64, **options)
    scalars = s.step(*batch(), STEP)
    held = Guard(s, None).parameters
    return {**scalars, **{n: p.grad for n, p in held.items() if p.grad is not None}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_does_so_with_every_other_setting(options, calls):
    check_same(step(**options), step(gradient_checkpointing=True, **options))
    assert calls[0] == calls[1] > 0


class Made(TorchDispatchMode):
    """Notes the memory of all tensors that operators give."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.found[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    @property
    def held(self):
        """Bytes of what is still there."""
        return sum(size for ref, size in self.found.values() if not ref.expired())


KEPT = {
    ("mobilenet_v3", "max"): 0.07,
    ("mobilenet_v3", "min"): 0.24,
    ("own_stages", "min"): 0.42,
    ("vit", "max"): 0.3,
}
"""Part of the memory for a backward pass that stages still need, with what is outside of them."""


@pytest.mark.parametrize(("name", "boundary"), KEPT)
def test_nothing_inside_of_a_layer_is_kept(name, boundary):
    model, held = supernet(name).train(), []
    policy = initial_policy(model.space, boundary, stream(0, "start"), std=10.0)
    for again in (False, True):
        arch = policy.sample(stream(0, "gumbel")).carrying(recomputes=again)
        with Made() as made:
            y = model(images(model, 64), arch)
        held.append(made.held)
        del y
    assert held[1] <= KEPT[name, boundary] * held[0]


def trained(folder=None, observers=(), **options):
    settings = TrainSettings(steps=4, batch_size=16, checkpoint_every=2, **options)
    data, more = few_digits(), {"folder": folder, "observers": observers}
    run = fit(mobilenet(), data, cost_range=COST_RANGE, settings=settings, **more)
    return digest(run.model), run.metrics, run.trajectory


class Stops(bn.Observer):
    """Ends a run after its third step."""

    def step(self, row):
        if row["step"] == 2:
            raise Killed


@pytest.mark.parametrize("first", [False, True])
def test_a_run_that_was_begun_one_way_goes_on_the_other_to_the_same_bytes(first, tmp_path):
    with pytest.raises(Killed):
        trained(tmp_path / "run", [Stops()], gradient_checkpointing=first)
    expected = trained()
    assert trained(tmp_path / "run", gradient_checkpointing=not first) == expected
    assert trained(gradient_checkpointing=True) == expected


def test_freed_memory_is_returned_after_every_network_of_such_a_training(monkeypatch):
    returned = []
    monkeypatch.setattr(loop, "give_back", lambda: returned.append(1))
    trained()
    assert returned == []
    trained(gradient_checkpointing=True)
    assert len(returned) == 4 * 4


def test_memory_is_returned_to_the_system():
    held = [bytearray(1 << 16) for _ in range(1024)]
    kept = held[::64]
    tuning.tune()
    before = resident()
    del held
    tuning.give_back()
    assert resident() < before - (32 << 20)
    assert len(kept) == 16


class Blocks(Supernet):
    """A stage of blocks that are handed in, where there is one."""

    def __init__(self, *blocks, after=lambda x: x):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (4, 8))
        self.conv, self.after = elastic.Conv2d(1, width), after
        self.norm = elastic.BatchNorm2d(width)
        self.stage = (
            elastic.Stage([each(width) for each in blocks], len(blocks)) if blocks else None
        )
        self.head = elastic.Linear(width, 10)

    def forward(self, x, arch):
        x = self.norm(self.conv(x, arch), arch)
        y = x if self.stage is None else self.stage(x, arch)
        return self.head((y + self.after(x)).mean((2, 3)), arch)


class Block(nn.Module):
    """A residual block that may change what it takes in place."""

    def __init__(self, width, inplace=False):
        super().__init__()
        self.conv, self.inplace = elastic.Conv2d(width, width, 3), inplace

    def forward(self, x, arch):
        return self.conv(F.relu(x, inplace=self.inplace), arch)


def fitted(model, **options):
    settings = TrainSettings(steps=2, batch_size=16, gradient_checkpointing=True, **options)
    return fit(model, few_digits(), cost_range=(1e3, 1e5), settings=settings)


def test_a_model_without_stages_is_refused_by_name():
    with pytest.raises(SpaceError, match=r"gradient_checkpointing .* Blocks has no elastic.Stage"):
        fitted(seeded(Blocks))


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_that_would_be_called_twice_are_refused_by_name(hook):
    model = seeded(partial(Blocks, Block))
    getattr(model.stage, hook)(lambda *_: None)  # is called once
    fitted(model)
    getattr(model.stage.get_submodule("0.conv"), hook)(lambda *_: None)
    with pytest.raises(SpaceError, match=r"stage\.0\.conv \(Conv2d\) has forward hooks"):
        fitted(model)


CHANGED = {
    "by the layer": (partial(Blocks, partial(Block, inplace=True)), r"stage\.0 .* in place in its"),
    "after it": (partial(Blocks, Block, after=F.relu_), r"stage\.0 .* in place after its"),
}


@pytest.mark.parametrize(("make", "told"), CHANGED.values(), ids=CHANGED)
def test_a_map_that_is_changed_in_place_is_refused_by_name(make, told):
    with pytest.raises(SpaceError, match=told):
        fitted(seeded(make))


@pytest.mark.parametrize("name", ["mobilenet_v3", "vit"])
def test_recordings_compute_again_too_with_the_same_draws(name, rerun, calls):  # noqa: F811
    found = []
    for again in (False, True):
        model = MODELS[name]()
        with replayed(model.train()):
            found.append(passed(model, again))
    check_same(*found)
    assert 0 < calls[0] == calls[1]
