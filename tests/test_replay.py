"""Passes that are recorded once and replayed, with a recording that the CPU can make."""

from contextlib import nullcontext

import pytest
import torch
from tests.faults import Killed
from tests.layers import LAYERS, MODELS, chain
from tests.networks import NETWORKS, network
from tests.small import COST_RANGE, digest, few_digits, mobilenet
from tests.spaces import SPACES, images, supernet

import boundnas as bn
from boundnas import Supernet, elastic
from boundnas.fit import loop, replay
from boundnas.fit.replay import replayed, replays
from boundnas.guard.masking import obstacle
from boundnas.method.policy import BOUNDARIES, initial_policy
from boundnas.randomness import stream
from boundnas.store.folder import RunFolder

WITHOUT = {"widths of two dimensions": "gradients of options by masks differ"}
"""A layer whose width falls where a dimension rises, so that the largest lacks some options."""


TRIALS = 2
"""Replays in which a recording is compared with what was recorded."""


def made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in NETWORKS:
            return bn.elasticize(*network(name))
        return supernet(name) if name in SPACES else chain(name)


@pytest.fixture
def rerun(monkeypatch):
    """Recordings that run a work again, as a CUDA graph does on a GPU; how often they ran.

    Like a graph's, their results lie where they lay before.
    """
    ran = []

    def record(work, pool):
        def results():
            of = work.__self__
            return (
                [of.y] if work.__name__ == "_answer" else [g for g in of.gradients if g is not None]
            )

        def again():
            ran.append(work.__name__)
            with torch.enable_grad():
                work()
            for place, result in zip(places, results(), strict=True):
                place.copy_(result.detach())
                result.data = place

        work()
        places = [result.detach() for result in results()]
        return again

    monkeypatch.setattr(replay, "record", record)
    return ran


@pytest.mark.parametrize("name", [*SPACES, *LAYERS, *MODELS, *NETWORKS])
def test_the_masked_form_computes_what_slices_do(name):
    reason = obstacle(made(name))
    if name in WITHOUT:
        assert WITHOUT[name] in reason
    else:
        assert reason is None


class Own(Supernet):
    """A forward that does something else in one architecture than in another."""

    def __init__(self, between):
        super().__init__((2, 6, 6))
        self.width = self.dimension("width", (2, 4, 6))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = elastic.Conv2d(2, self.width, 3, bias=True)
            self.head = elastic.Linear(self.width, 3)
        self.between = between

    def forward(self, x, arch):
        y = self.between(self, self.conv(x, arch).tanh(), arch)
        return self.head(y.mean((2, 3)), arch)


BETWEEN = {
    "a branch on the architecture": (
        lambda m, y, arch: y * 2 if arch[m.width] > 2 else y,
        "its outputs by masks differ from those of its slices",
    ),
    "the number of channels": (
        lambda m, y, arch: y / y.shape[1],
        "its outputs by masks differ from those of its slices",
    ),
    "a width as a number": (
        lambda m, y, arch: y * arch.size(m.width),
        "its outputs by masks differ from those of its slices",
    ),
    "an error by masks": (
        lambda m, y, arch: y if y.shape[1] < 6 or not arch.masked else y.view(3),
        "RuntimeError: shape '[3]' is invalid for input of size",
    ),
    "float32 alone": (
        lambda m, y, arch: y @ torch.ones(6, 6),
        "RuntimeError: expected m1 and m2 to have the same dtype",
    ),
    "nothing": (lambda m, y, arch: y, None),
}


@pytest.mark.parametrize(("between", "reason"), BETWEEN.values(), ids=BETWEEN)
def test_a_forward_that_masks_cannot_follow_is_found(between, reason):
    found = obstacle(Own(between))
    assert found is None if reason is None else reason in str(found)


def test_the_model_is_left_as_it_is_by_the_comparison():
    model = mobilenet()
    model.eval()
    before = digest(model)
    assert obstacle(model) is None
    assert digest(model) == before
    assert not any(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def gradients(model, archs, x, record):
    """Outputs of networks one after the other, and what their gradients add up to."""
    model.zero_grad()
    found = []
    with replayed(model) if record else nullcontext():
        for i, arch in enumerate(archs):
            y = model(x, arch)
            (y.sin() * (i + 1)).sum().backward()
            found.append(y.detach())
    return found, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", ["mobilenet_v3", "own_stages", "own_network", "attentive_nas"])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_networks_that_are_replayed_have_the_gradients_of_slices(name, dtype, rounding, rerun):
    model = made(name).to(dtype).train()
    x = images(model, 5).contiguous(memory_format=torch.channels_last)  # as compiled kernels take
    policy = initial_policy(model.space, "max", stream(0, "start"), std=0.07).to(dtype)
    results = []
    for record in (False, True):
        policy.zero_grad()
        archs = [policy.sample(stream(i, "gumbel")) for i in range(2)]
        archs += [model.space.sample(stream(i, "plain")) for i in range(2)]
        values, weights = gradients(model, archs, x, record)
        results.append((values, weights, policy.logits.grad.clone()))
    (values, weights, logits), (own_values, own_weights, own_logits) = results
    zeros = [torch.zeros_like(p) if g is None else g for p, g in
             zip(model.parameters(), weights, strict=True)]  # fmt: skip
    for own, sliced in ((own_values, values), (own_weights, zeros), ([own_logits], [logits])):
        scale = sum(t.norm() for t in sliced)
        for one, other in zip(own, sliced, strict=True):
            assert (one - other).norm() <= rounding * scale
    assert rerun == ["_answer", "_differentiate"] * (TRIALS + 4)


def test_gradients_of_gates_add_up_over_passes(rerun):
    model, found = mobilenet().double().train(), []
    xs = [images(model, 4, seed).double() for seed in (0, 1)]
    for within in (nullcontext(), replayed(model)):
        flat = torch.eye(2, dtype=torch.float64)
        gates = tuple(flat[int(i)].clone().requires_grad_() for i in model.space.largest.indices)
        with within:
            for x in xs:
                model(x, model.space.largest.carrying(gates=gates)).sin().sum().backward()
        found.append([gate.grad for gate in gates])
    torch.testing.assert_close(*found)


def test_gradients_that_are_taken_away_are_not_written_again(rerun):
    model = mobilenet().train()
    x = images(model, 4)
    with replayed(model):
        model(x, model.space.largest).sum().backward()
        taken = [p.grad for p in model.parameters()]
        before = [g.clone() for g in taken]
        model.zero_grad()
        model(x, model.space.smallest).sin().sum().backward()
        assert all(map(torch.equal, taken, before))
        own = [p.grad.clone() for p in model.parameters()]
        model(x, model.space.smallest).sin().sum().backward()
    for grad, once in zip((p.grad for p in model.parameters()), own, strict=True):
        torch.testing.assert_close(grad, 2 * once)


NOISY = {
    "dropout": lambda: elastic.Dropout(0.5),
    "alpha dropout": lambda: elastic.AlphaDropout(0.5),
    "drop-connect": lambda: elastic.DropConnect(0.5),
    "random slopes": elastic.RReLU,
}


@pytest.mark.parametrize("layer", NOISY.values(), ids=NOISY)
def test_noise_is_that_of_its_stream_and_none_without_one(layer, rerun):
    model = made("sample_wise").double().train()
    model.dropout = layer()
    x, arch = images(model, 5), model.space.largest
    with replayed(model):
        plain = model(x, arch)
        one, again, other = (
            model(x, arch.carrying(noise=stream(seed, "noise"))) for seed in (1, 1, 2)
        )
        assert torch.equal(model(x, arch), plain)
    torch.testing.assert_close(plain, model(x, arch), rtol=1e-9, atol=1e-12)
    by_slices = model(x, arch.carrying(noise=stream(1, "noise")))
    torch.testing.assert_close(one, by_slices, rtol=1e-6, atol=1e-9)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)


def test_layers_beyond_the_depth_get_no_noise(rerun):
    """Their outputs are what options of a larger depth have, whose gradient is without noise."""
    model = supernet("own_stages").double().train()
    drops = [m for m in model.modules() if isinstance(m, elastic.DropConnect)]
    assert drops
    for drop in drops:
        drop.probability = 0.9
    model.dropout.probability = 0.0
    x, arch = images(model, 5), model.space.smallest  # of one layer in the searched stages
    noisy = arch.carrying(noise=stream(0, "noise"))
    kept = []
    with replayed(model):
        of = model.forward
        y = model(x, noisy)
        held = of.__closure__
    recording = next(c.cell_contents for c in held if isinstance(c.cell_contents, dict))
    (only,) = recording.values()
    for layer, _, used in only.draws.calls:
        there = all(c.value(arch) for c in only.draws.presence[layer.name])
        kept.append(there)
        assert bool(used) == there, layer.name
    assert {*kept} == {False, True}
    assert y.shape[0] == 5


def test_what_a_recording_would_not_notice_is_recorded_anew(rerun):
    model = mobilenet().train()
    x = images(model, 4)
    with replayed(model):
        model(x, model.space.largest).sum().backward()
        model.zero_grad()
        model.classifier.weight.requires_grad_(False)
        model(x, model.space.largest).sum().backward()
        assert model.classifier.weight.grad is None
        model(x[:3], model.space.largest).sum().backward()
        with torch.no_grad():
            ungraphed = model(x, model.space.largest)
    assert rerun == ["_answer", "_differentiate"] * 3 * (TRIALS + 1)
    assert not ungraphed.requires_grad
    assert "forward" not in vars(model)


HOOKED = {
    "stem.conv": lambda model: model.stem.conv.register_forward_hook(lambda *a: None),
    "stem.norm": lambda model: model.stem.norm.register_full_backward_hook(lambda *a: None),
    "classifier": lambda model: model.classifier.register_forward_pre_hook(lambda *a: None),
    "classifier.weight": lambda model: model.classifier.weight.register_hook(lambda g: None),
}


@pytest.mark.parametrize(("name", "hook"), HOOKED.items(), ids=HOOKED)
def test_what_has_hooks_is_not_replayed(name, hook, rerun, caplog):
    model = mobilenet().train()
    hook(model)
    with replayed(model):
        model(images(model, 4), model.space.largest)
    assert rerun == []
    assert f"by slices, which a GPU computes slowly: {name} has hooks" in caplog.text


def test_hooks_of_the_model_itself_are_called(rerun):
    model, called = mobilenet().train(), []
    model.register_forward_pre_hook(lambda *a: called.append("before"))
    model.register_forward_hook(lambda *a: called.append("after"))
    with replayed(model):
        model(images(model, 4), model.space.largest)
    assert called == ["before", "after"]
    assert rerun


def test_inputs_of_many_shapes_are_recorded_a_few_times_only(rerun, monkeypatch, caplog):
    monkeypatch.setattr(replay, "MOST", 2)
    model = mobilenet().train()
    with replayed(model):
        for number in (3, 4, 5, 4, 5):
            x = images(model, number)
            y = model(x, model.space.largest)
            torch.testing.assert_close(y, type(model).forward(model, x, model.space.largest))
    assert rerun.count("_answer") == 2 * TRIALS + 3
    assert caplog.text.count("inputs of other shapes than the 2 that were recorded") == 1


def of_old_weights(model):
    """Recordings that keep the weights of when they were made."""

    def record(work, pool):
        held = [p.detach().clone() for p in model.parameters()]

        def again():
            now = [p.detach().clone() for p in model.parameters()]
            set_weights(model, held)
            with torch.enable_grad():
                work()
            set_weights(model, now)

        work()
        return again

    return record


def set_weights(model, values):
    for p, value in zip(model.parameters(), values, strict=True):
        p.data.copy_(value)  # unseen by autograd


def failing(work, pool):
    raise RuntimeError("CUDA out of memory\nand a trace")


BROKEN = {
    "of old weights": (of_old_weights, "passes that were recorded differ from computed ones by"),
    "of nothing": (lambda model: lambda work, pool: (work(), lambda: None)[1], "differ from"),
    "none": (lambda model: failing, "MobileNet is trained by slices, which a GPU computes slowly: "
             "CUDA out of memory\n"),
}  # fmt: skip


@pytest.mark.parametrize(("recorder", "told"), BROKEN.values(), ids=BROKEN)
def test_a_recording_that_fails_is_not_replayed(recorder, told, monkeypatch, caplog):
    model = mobilenet().train()
    x, weights = images(model, 4), [p.detach().clone() for p in model.parameters()]
    expected = gradients(model, [model.space.largest], x, record=False)
    monkeypatch.setattr(replay, "record", recorder(model))
    found = gradients(model, [model.space.largest], x, record=True)
    assert told in caplog.text
    assert all(map(torch.equal, model.parameters(), weights))
    assert all(map(torch.equal, found[0], expected[0]))
    assert all(map(torch.equal, found[1], expected[1]))


def settings(**more):
    given = {
        "steps": 6,
        "batch_size": 16,
        "checkpoint_every": 3,
        "ghost_fraction": 1,
    }  # as by masks
    return bn.TrainSettings(**given | more)


@pytest.fixture
def on_any_device(monkeypatch):
    """Training that replays on the CPU too."""
    monkeypatch.setattr(loop, "replays", replayed)


def trained(noise=False, folder=None, **more):
    model = mobilenet()
    for module in model.modules():
        if isinstance(module, elastic.Dropout | elastic.DropConnect) and not noise:
            module.probability = 0.0
    return bn.fit(model, few_digits(), cost_range=COST_RANGE, settings=settings(**more),
                  folder=folder)  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"learn": "none"}], ids=str)
def test_a_training_by_masks_is_that_by_slices_but_for_rounding(more, rerun, on_any_device):
    by_masks = trained(**more)
    assert rerun
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "replays", lambda model: nullcontext())
        by_slices = trained(**more)
    for step, (one, other) in enumerate(zip(by_masks.metrics, by_slices.metrics, strict=True)):
        for boundary in BOUNDARIES:
            assert one.pop(f"cost_{boundary}") == other.pop(f"cost_{boundary}")
        assert one == pytest.approx(other, rel=1e-2 if step else 1e-5)  # rounding grows
    ours, theirs = (torch.cat([p.detach().flatten() for p in r.boundaries.max.parameters()])
                    for r in (by_masks, by_slices))  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_training_by_masks_that_was_stopped_ends_in_the_same_bytes(
    tmp_path, rerun, on_any_device, monkeypatch
):
    whole = trained(noise=True)
    folder, save = RunFolder.create(tmp_path / "run", "name: run\n"), loop.checkpoint.save

    def stopping(*args, **options):
        save(*args, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", stopping)
        with pytest.raises(Killed):
            trained(noise=True, folder=folder)
    assert digest(trained(noise=True, folder=folder).model) == digest(whole.model)


def on_a_gpu(monkeypatch):
    monkeypatch.setattr(replay, "_device", lambda model: torch.device("cuda"))


def test_on_a_cpu_and_where_it_is_kept_off_passes_are_not_recorded(monkeypatch):
    model = mobilenet()
    with replays(model):
        assert "forward" not in vars(model)
    on_a_gpu(monkeypatch)
    with replays(model):
        assert "forward" in vars(model)
    monkeypatch.setenv("BOUNDNAS_TUNE", "0")
    with replays(model):
        assert "forward" not in vars(model)


def test_what_cannot_be_trained_by_masks_is_said_and_trained_by_slices(monkeypatch, caplog):
    on_a_gpu(monkeypatch)
    model = Own(lambda m, y, arch: y * arch.size(m.width))
    with replays(model):
        assert "forward" not in vars(model)
    assert "Own is trained by slices, which a GPU computes slowly: its outputs by masks differ" in (
        caplog.text
    )
