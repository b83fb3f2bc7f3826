import copy
import pickle
import re
from dataclasses import replace

import pytest
import torch
from tests.small import few_digits, trained
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn

from boundnas import Architecture, SearchSettings, Supernet, calibrate, elastic, extract
from boundnas.errors import CalibrationError, SpaceError
from boundnas.randomness import stream
from boundnas.search import Evaluator, evaluator
from boundnas.supernet.calibrate import alike

WITHOUT = ("sample_wise", "tokens", "convnext", "vit")
NORMALIZED = [name for name in SPACES if name not in WITHOUT]


def norms_of(net):
    """The BatchNorm layers by their name in the supernet; one with a ReLU is the first of two."""
    named = net.named_modules()
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    return {name.removesuffix(".0"): m for name, m in named if isinstance(m, kinds)}


def values_per_channel(net, x):
    """How many numbers each BatchNorm layer averages over."""
    numbers = {}
    hooks = [
        m.register_forward_pre_hook(
            lambda module, inputs, name=name: numbers.update(
                {name: inputs[0].numel() // inputs[0].shape[1]}
            )
        )
        for name, m in norms_of(net).items()
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return numbers


@pytest.mark.parametrize("name", NORMALIZED)
def test_statistics_are_those_batch_normalization_gathers_itself(name):
    model = supernet(name).double()
    batches = [images(model, 6, seed) for seed in range(3)]
    arch = calibrate(model, model.space.sample(stream(0, "architecture")), batches)
    net = extract(model, arch)
    numbers = values_per_channel(net, batches[0])
    assert set(numbers) == set(arch.carried.statistics.moments)
    layers = norms_of(net)
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # an average over all batches
    net.train()
    for batch in batches:
        net(batch)
    for name, layer in layers.items():
        n, (mean, var) = numbers[name], arch.carried.statistics.moments[name]
        torch.testing.assert_close(mean, layer.running_mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(var, layer.running_var * (n - 1) / n, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NORMALIZED)
def test_evaluation_on_the_calibration_batch_equals_training_on_it(name):
    model = supernet(name).double()
    x, arch = images(model, 6), model.space.sample(stream(0, "architecture"))
    trained = model.train()(x, arch)
    evaluated = model.eval()(x, calibrate(model, arch, [x]))
    torch.testing.assert_close(evaluated, trained, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NORMALIZED)
def test_evaluation_without_statistics_names_the_layer_and_the_remedy(name):
    model = supernet(name).eval()
    norms = [k for k, m in model.named_modules() if isinstance(m, elastic.BatchNorm)]
    message = (
        rf"^({'|'.join(map(re.escape, norms))}): evaluation needs .* "
        r"use the one that calibrate\(model, arch, images\) returns"
    )
    with pytest.raises(CalibrationError, match=message):
        model(images(model, 2), model.space.smallest)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_weights_of_the_model_are_left_as_they_were(training):
    model = supernet("own_network").train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    arch = model.space.largest
    calibrated = calibrate(model, arch, [images(model, 4)])
    assert calibrated == arch
    assert all(m.training is training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(mean.requires_grad for mean, _ in calibrated.carried.statistics.moments.values())


def torn_batches(model):
    yield images(model, 4)
    raise OSError("the disk is gone")


def test_the_mode_is_restored_when_calibration_fails():
    model = supernet("own_network").train()
    with pytest.raises(OSError, match="the disk is gone"):
        calibrate(model, model.space.smallest, torn_batches(model))
    with pytest.raises(SpaceError, match="of another space"):
        calibrate(model, supernet("sample_wise").space.smallest, [images(model, 4)])
    assert model.training


def test_no_images_are_one_clear_error():
    model = supernet("own_network")
    with pytest.raises(CalibrationError, match="at least one batch of images, found none"):
        calibrate(model, model.space.smallest, [])
    assert model.training


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["an image", "a weight"])
def test_statistics_that_are_not_finite_are_refused_by_their_layer(where, number):
    model = supernet("own_network")
    batch = images(model, 4)
    if where == "an image":
        batch[2, 0, 5, 5] = number
    else:
        with torch.no_grad():
            model.first.weight[0, 0, 1, 1] = number
    with pytest.raises(CalibrationError, match=r"^norm: the statistics .* are not finite"):
        calibrate(model, model.space.largest, [images(model, 4), batch])


SPLITS = {  # of twelve images
    "equal batches": (4, 4, 4),
    "a remainder of two": (5, 5, 2),
    "a small batch first": (2, 10),
    "four sizes": (2, 3, 4, 3),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("name", ["own_network", "two calls"])
def test_batches_count_by_their_images(name, split):
    model = (seeded(TwoCalls) if name == "two calls" else supernet(name)).double()
    arch, batches = model.space.largest, images(model, 12).split(split)
    found = calibrate(model, arch, batches).carried.statistics.moments
    each = [calibrate(model, arch, [batch]).carried.statistics.moments for batch in batches]
    for layer, moments in found.items():
        for moment, value in enumerate(moments):
            expected = sum(n * m[layer][moment] for n, m in zip(split, each, strict=True)) / 12
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
            if len(set(split)) == 1 and name == "own_network":
                assert torch.equal(value, torch.stack([m[layer][moment] for m in each]).mean(0))


class TwoCalls(Supernet):
    """One normalization of two maps, of which each batch leaves two statistics."""

    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (2, 4))
        self.conv, self.norm = elastic.Conv2d(3, width), elastic.BatchNorm2d(width)
        self.bn = elastic.BatchNorm2d(width)

    def forward(self, x, arch):
        x = self.conv(x, arch)
        return self.bn(self.norm(x, arch) + self.norm(x * x, arch), arch).mean((2, 3))


def test_the_mean_does_not_depend_on_how_the_images_are_split():
    model = supernet("own_network").double()
    x, arch = images(model, 12), model.space.largest
    whole = calibrate(model, arch, [x]).carried.statistics.moments["norm"][0]
    for split in SPLITS.values():
        found = calibrate(model, arch, x.split(split)).carried.statistics.moments["norm"][0]
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-15)


NO_BATCHES = {
    "one image": (lambda x: x[:1], r"batch 1: 1 image has no statistics of a batch; leave"),
    "no image": (lambda x: x[:0], r"batch 1: 0 image has no"),
    "pixels": (lambda x: x.to(torch.uint8), r"found \(4, 3, 10, 10\), torch\.uint8, .*normalize"),
    "another precision": (lambda x: x.double(), r"torch\.float32, on cpu; found .*torch\.float64"),
    "another size": (lambda x: x[..., 1:], r"\(N, 3, 10, 10\), .* found \(4, 3, 10, 9\)"),
    "channels last": (lambda x: x.movedim(1, 3), r"found \(4, 10, 10, 3\)"),
    "another device": (lambda x: x.to("meta"), r"on cpu; found .* on meta"),
    "no batch but an image": (lambda x: x[0], r"found \(3, 10, 10\).* given in a list"),
    "images and labels": (lambda x: (x, x), r"found a tuple"),
    "an array": (lambda x: x.numpy(), r"found a ndarray"),
}


@pytest.mark.parametrize("name", NO_BATCHES)
def test_what_is_no_batch_of_the_model_is_refused_by_its_number(name):
    change, message = NO_BATCHES[name]
    model = supernet("own_network")
    x = images(model, 4)
    with pytest.raises(CalibrationError, match="calibration batch 1: .*" + message.split(": ")[-1]):
        calibrate(model, model.space.smallest, iter([x, change(x)]))
    assert model.training


def test_a_remainder_of_one_image_is_no_batch_of_the_search():
    run = trained()
    settings = SearchSettings(calibration_images=17, batch_size=8)
    whole, without = (
        Evaluator(run.model, run.data, settings.model_copy(update={"calibration_images": n}), 0)
        for n in (17, 16)
    )
    arch = run.model.space.largest
    found, expected = (
        whole.calibrated(arch).carried.statistics.moments,
        without.calibrated(arch).carried.statistics.moments,
    )
    assert all(torch.equal(found[k][j], expected[k][j]) for k in expected for j in (0, 1))


def stepped(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(images(model, 4), model.space.largest).sum().backward()
    optimizer.step()


def written(model):
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1


def swapped(model):
    model.hidden.weight.data = model.hidden.weight.data * 2


def replaced(model):
    with torch.random.fork_rng(devices=[]):
        model.first = nn.Conv2d(3, 4, 3, padding=1)


def behind(model):
    model.hidden.weight.data.mul_(2)


CHANGES = {
    "a step": stepped,
    "one number": written,
    "another tensor of the same parameter": swapped,
    "another layer": replaced,
    "behind the versions": behind,
    "loaded weights": lambda model: model.load_state_dict(
        supernet_of(seed=1, name="own_network").state_dict()
    ),
}


def supernet_of(seed, name):
    return seeded(SPACES[name], seed)


USES = {
    "a pass": lambda model, arch: model.eval()(images(model, 2), arch),
    "extraction": extract,
    "a folded pass": lambda model, arch: model.eval()(images(model, 2), arch.carrying(folds=True)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", CHANGES)
def test_statistics_of_other_weights_are_refused(change, use):
    if (change, use) == ("behind the versions", "a folded pass"):
        return  # which only the search makes, of weights that it leaves alone
    model = supernet("own_network")
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    USES[use](model, arch)
    CHANGES[change](model)
    for _ in range(2):
        with pytest.raises(
            CalibrationError, match=r"other weights than OwnNetwork has now: it was"
        ):
            USES[use](model, arch)
    USES[use](model, calibrate(model, arch.plain, [images(model, 4)]))


@pytest.mark.parametrize("use", USES)
def test_statistics_of_another_model_of_the_same_layers_are_refused(use):
    model, other = (supernet_of(seed, "own_network") for seed in (0, 1))
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    with pytest.raises(CalibrationError, match="or is another model"):
        USES[use](other, arch)


@pytest.mark.parametrize("use", USES)
def test_a_model_at_the_place_of_another_is_another(use):
    """Memory is given out again, to tensors that were written as often."""
    model, other = (supernet_of(0, "own_network") for _ in range(2))
    written(model)
    for parameter, place in zip(other.parameters(), model.parameters(), strict=True):
        parameter.data = place.data
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    written(other)
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        assert (mine.data_ptr(), mine._version) == (its.data_ptr(), its._version)
    with pytest.raises(CalibrationError, match="or is another model"):
        USES[use](other, arch)


SAME = {
    "a copy": copy.deepcopy,
    "equal weights that were loaded": lambda model: loaded(supernet_of(1, "own_network"), model),
    "itself, loaded": lambda model: loaded(model, copy.deepcopy(model)),
    "itself, trained no further": lambda model: model.train(),
}


def loaded(model, other):
    model.load_state_dict(other.state_dict())
    return model


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", SAME)
def test_equal_weights_are_the_same_weights(name, use):
    model = supernet("own_network")
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    for kept in (arch, copy.deepcopy(arch), pickle.loads(pickle.dumps(arch))):  # noqa: S301
        for _ in range(2):
            USES[use](SAME[name](model), kept)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["made", "replaced"])
def test_statistics_of_another_architecture_are_refused(kind, use):
    model = supernet("own_network")
    arch = calibrate(model, model.space.smallest, [images(model, 4)])
    indices = (0, 1, *arch.indices[2:])  # another kernel, so that every width is the same
    if kind == "made":
        other = Architecture(arch.space, indices, arch.carried)
    else:
        other = replace(arch, indices=indices)
    with pytest.raises(CalibrationError, match=r"for another architecture \(.*kernel=1.*kernel=3"):
        USES[use](model, other)


def test_without_batch_normalization_nothing_belongs_to_the_weights():
    model = supernet("sample_wise").eval()
    arch = calibrate(model, model.space.largest, [images(model, 2)])
    behind(model)
    assert torch.equal(extract(model, arch)(images(model, 2)), model(images(model, 2), arch.plain))


def test_calibrated_architectures_of_one_network_are_one_key():
    model = supernet("own_network")
    arch = model.space.smallest
    first, second = (calibrate(model, arch, [images(model, 4, seed)]) for seed in (0, 1))
    assert {first: 1} == {second: 1} == {arch: 1}
    assert first.plain.statistics("norm", images(model, 4)) is None


def test_a_model_without_batch_normalization_has_no_statistics():
    model = supernet("sample_wise").eval()
    arch, x = model.space.largest, images(model, 2)
    calibrated = calibrate(model, arch, [x])
    assert calibrated.carried.statistics.moments == {}
    assert torch.equal(model(x, calibrated), model(x, arch))


@pytest.mark.parametrize("name", NORMALIZED)
def test_folding_normalizations_into_convolutions_changes_nothing_but_rounding(name):
    model = supernet(name).double()
    x = images(model, 6)
    for number in range(4):
        arch = calibrate(model, model.space.sample(stream(0, "architecture", number)), [x])
        with torch.no_grad():
            expected = model.eval()(x, arch)
            found = model(x, arch.carrying(folds=True))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", ["conv", "depthwise"])
def test_a_convolution_with_a_bias_is_folded_too(layer):
    class Net(Supernet):
        def __init__(self):
            super().__init__(input_shape=(3, 6, 6))
            width = self.dimension("width", [2, 4]) if layer == "conv" else 3
            kernel = self.dimension("kernel", [1, 3], kind="kernel")
            if layer == "conv":
                self.conv = elastic.Conv2d(3, width, kernel, bias=True)
            else:
                self.conv = elastic.DepthwiseConv2d(3, kernel, bias=True)
            self.norm = elastic.BatchNorm2d(width, activation="relu")

        def forward(self, x, arch):
            if arch.folds:
                return self.norm.folded(self.conv, x, arch)
            return self.norm(self.conv(x, arch), arch)

    model = seeded(Net).double()
    x = images(model, 5)
    for arch in (model.space.smallest, model.space.largest):
        arch = calibrate(model, arch, [x])
        with torch.no_grad():
            expected = model.eval()(x, arch)
            found = model(x, arch.carrying(folds=True))
        assert expected.any()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def moments(arch):
    return arch.carried.statistics.moments


@pytest.mark.parametrize("name", ["own_stages", "own_network"])
def test_batches_that_pass_together_are_normalized_by_themselves(name):
    model = supernet(name).double()
    x = images(model, 12)
    for arch in (model.space.largest, model.space.sample(stream(1, "arch"))):
        apart = calibrate(model, arch, [x[:4], x[4:8], x[8:]])
        together = calibrate(model, arch, [x[:8], x[8:]], size=4)
        whole = calibrate(model, arch, [x])
        assert alike(together.carried.statistics, apart.carried.statistics, 1e-10)
        assert not alike(whole.carried.statistics, apart.carried.statistics, 1e-4)
        assert moments(together).keys() == moments(apart).keys()


@pytest.mark.parametrize("size", [1, 5])
def test_parts_that_a_batch_does_not_hold_are_refused(size):
    model = supernet("own_network")
    with pytest.raises(CalibrationError, match=f"12 images is not made of parts of {size}"):
        calibrate(model, model.space.largest, [images(model, 12)], size=size)


class Turned(Supernet):
    """Normalizes with pixels as its first axis, over samples as positions."""

    def __init__(self):
        super().__init__((2, 8))
        width = self.dimension("width", (3, 4))
        self.conv, self.norm = elastic.Conv1d(2, width), elastic.BatchNorm1d(width)

    def forward(self, x, arch):
        return self.norm(self.conv(x, arch).permute(2, 1, 0), arch).permute(2, 1, 0)


def test_batches_do_not_pass_together_where_another_axis_comes_first():
    model = seeded(Turned)
    x = images(model, 12)
    with pytest.raises(CalibrationError, match="norm: batches of 4, 4, 4 images cannot pass"):
        calibrate(model, model.space.largest, [x], size=4)
    x = x[:8]  # as many as there are pixels
    apart = calibrate(model, model.space.largest, [x[:4], x[4:]])
    together = calibrate(model, model.space.largest, [x], size=4)
    assert not alike(together.carried.statistics, apart.carried.statistics, 1e-4)


def evaluators(model, monkeypatch):
    """One of which batches pass together, where they may, and one of which they do not."""
    settings = SearchSettings(calibration_images=80, batch_size=16)
    found = Evaluator(model, few_digits(), settings, 0)
    monkeypatch.setattr(evaluator, "TOGETHER", 0)
    return found, Evaluator(model, few_digits(), settings, 0)


def test_candidates_score_the_same_in_fewer_passes(monkeypatch):
    run = trained()
    together, apart = evaluators(run.model, monkeypatch)
    passes = []
    hook = run.model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    for i in range(4):
        arch = run.model.space.sample(stream(i, "arch"))
        passes.clear()
        found = together(arch)
        assert passes[0] == 80  # all calibration batches
        assert found == apart(arch)
        assert [n for n in passes if n == 16] == [16] * 5
        pair = (e.calibrated(arch).carried.statistics for e in (together, apart))
        assert alike(*pair, 1e-5)
        half = (e.calibrated(arch, 0.5).carried.statistics for e in (together, apart))
        assert alike(*half, 1e-5)
    hook.remove()


def test_an_evaluator_tries_whether_batches_may_pass_together(monkeypatch):
    monkeypatch.setattr(evaluator, "alike", lambda *_: False)
    together, _ = evaluators(trained().model, monkeypatch)
    assert len(together._together(5)) == 5
