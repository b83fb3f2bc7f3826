import pytest
import torch
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn

from boundnas import Supernet, calibrate, elastic, extract
from boundnas.calibrate import Folding
from boundnas.errors import CalibrationError, SpaceError
from boundnas.randomness import stream

NORMALIZED = [name for name in SPACES if name != "sample_wise"]


def norms_of(net):
    """The BatchNorm layers by their name in the supernet; one with a ReLU is the first of two."""
    named = net.named_modules()
    return {name.removesuffix(".0"): m for name, m in named if isinstance(m, nn.BatchNorm2d)}


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
    assert set(numbers) == set(arch.moments)
    layers = norms_of(net)
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # an average over all batches
    net.train()
    for batch in batches:
        net(batch)
    for name, layer in layers.items():
        n, (mean, var) = numbers[name], arch.moments[name]
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
    message = r"norm: evaluation needs .* use the one that calibrate\(model, arch, images\) returns"
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
    assert not any(mean.requires_grad for mean, _ in calibrated.moments.values())


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


def test_calibrated_architectures_of_one_network_are_one_key():
    model = supernet("own_network")
    arch = model.space.smallest
    first, second = (calibrate(model, arch, [images(model, 4, seed)]) for seed in (0, 1))
    assert {first: 1} == {second: 1} == {arch: 1}
    assert type(first.plain) is type(arch)


def test_a_model_without_batch_normalization_has_no_statistics():
    model = supernet("sample_wise").eval()
    arch, x = model.space.largest, images(model, 2)
    calibrated = calibrate(model, arch, [x])
    assert calibrated.moments == {}
    assert torch.equal(model(x, calibrated), model(x, arch))


@pytest.mark.parametrize("name", NORMALIZED)
def test_folding_normalizations_into_convolutions_changes_nothing_but_rounding(name):
    model = supernet(name).double()
    x = images(model, 6)
    for number in range(4):
        arch = calibrate(model, model.space.sample(stream(0, "architecture", number)), [x])
        with torch.no_grad():
            expected = model.eval()(x, arch)
            found = model(x, Folding(arch.space, arch.indices, arch.moments))
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
            found = model(x, Folding(arch.space, arch.indices, arch.moments))
        assert expected.any()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
