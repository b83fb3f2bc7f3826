"""A model and images that do not belong together are refused before anything is trained."""

from dataclasses import replace

import pytest
import torch
from tests.small import COST_RANGE, few_digits, mobilenet
from torch import nn

from boundnas import Supernet, TrainSettings, data, elastic, export, extract, fit
from boundnas.cost import MACs
from boundnas.data.source import labels_of
from boundnas.errors import DataError, SpaceError, TrainingError
from boundnas.models import mobilenet_v2


@pytest.fixture(autouse=True)
def _own_draws():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Net(Supernet):
    """A convolution and a head, with the fault that a test asks for."""

    def __init__(self, shape=(1, 8, 8), classes=10, form=lambda x: x):
        super().__init__(shape)
        width = self.dimension("width", [2, 4])
        self.conv = elastic.Conv2d(shape[0], width, 3)
        self.head = elastic.Linear(width, classes)
        self.form = form

    def forward(self, x, arch):
        return self.form(self.head(self.conv(x, arch).mean((2, 3)), arch))


def on(device):
    net = Net()
    net.head.to(device)
    return net


def mixed():
    net = Net()
    net.head.double()
    return net


def lazy(net):
    net.head = nn.LazyLinear(10)
    return net


class Empty(Supernet):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.dimension("width", [2, 4])

    def forward(self, x, arch):
        return x.flatten(1)


def without(source, labels):
    kept = torch.isin(labels_of(source), torch.tensor(labels), invert=True)
    return data.Subset(source, kept.nonzero()[:, 0])


def lacking(*labels):
    digits = few_digits()
    splits = ("train", "validation", "test")
    return replace(digits, **{name: without(getattr(digits, name), labels) for name in splits})


MISFITS = {
    "a larger image": (
        lambda: Net((1, 32, 32)),
        few_digits,
        DataError,
        "built for images of shape 1x32x32 .*those of digits have 1x8x8: .*input_shape=data.shape",
    ),
    "another family": (
        lambda: mobilenet_v2(image_size=32, in_channels=1, classes=10, width=0.25),
        few_digits,
        DataError,
        "shape 1x32x32 .*digits have 1x8x8",
    ),
    "colours": (lambda: Net((3, 8, 8)), few_digits, DataError, "shape 3x8x8 .*digits have 1x8x8"),
    "channels last": (
        lambda: Net((8, 8, 1)),
        few_digits,
        DataError,
        r"shape 8x8x1 .*\(its channels may stand last\)",
    ),
    "too few outputs": (
        lambda: Net(classes=5),
        few_digits,
        DataError,
        r"digits has 10 classes, .* for two images it gives \(2, 5\); build its last layer for 10",
    ),
    "too many outputs": (lambda: Net(classes=11), few_digits, DataError, r"it gives \(2, 11\)"),
    "maps": (
        lambda: Net(form=lambda x: x[:, :, None]),
        few_digits,
        DataError,
        r"it gives \(2, 10, 1\)",
    ),
    "a tuple": (
        lambda: Net(form=lambda x: (x, x)),
        few_digits,
        SpaceError,
        "must return one tensor .* as logits .* found, .* tuple",
    ),
    "an untrained class": (
        Net,
        lambda: lacking(3, 9),
        DataError,
        "digits has no training image of 2 of its 10 classes: 3, 9; add images",
    ),
    "double precision": (
        lambda: Net().double(),
        few_digits,
        TrainingError,
        r"weights are float64; .*call model.float\(\)",
    ),
    "half precision": (lambda: Net().half(), few_digits, TrainingError, "weights are float16"),
    "bfloat16": (lambda: Net().bfloat16(), few_digits, TrainingError, "weights are bfloat16"),
    "mixed precision": (mixed, few_digits, TrainingError, "weights are float32 and float64"),
    "two devices": (lambda: on("meta"), few_digits, TrainingError, "found cpu and meta"),
    "no device": (lambda: Net().to("meta"), few_digits, TrainingError, "found meta"),
    "all frozen": (
        lambda: Net().requires_grad_(False),
        few_digits,
        TrainingError,
        r"all of the model's parameters are frozen .*call requires_grad_\(\)",
    ),
    "a lazy layer": (
        lambda: lazy(Net()),
        few_digits,
        SpaceError,
        r"head \(LazyLinear\): a lazy module has no we",
    ),
    "no weights": (Empty, few_digits, TrainingError, "no parameters to train"),
}


@pytest.mark.parametrize(("model", "images", "error", "message"), MISFITS.values(), ids=MISFITS)
def test_a_model_that_does_not_fit_its_images_is_refused_by_name(model, images, error, message):
    with pytest.raises(error, match=message):
        fit(model(), images(), cost_range=(100, 1e7), settings=TrainSettings(steps=1, batch_size=8))


def under_no_grad(train):
    with torch.no_grad():
        train(Net())


def under_inference_mode(train):
    with torch.inference_mode():
        train(Net())


def built_there(train):
    with torch.inference_mode():
        model = Net()
    train(model)


@pytest.mark.parametrize("way", [under_no_grad, under_inference_mode, built_there])
def test_training_without_gradients_is_refused_and_no_layer_is_blamed(way):
    def train(model):
        settings = TrainSettings(steps=1, batch_size=8)
        fit(model, few_digits(), cost_range=(100, 1e7), settings=settings)

    with pytest.raises(TrainingError, match="needs gradients, and they are switched off"):
        way(train)


@pytest.mark.parametrize("batch_size", [81, 1000])
def test_a_batch_larger_than_the_training_set_is_refused(batch_size):
    settings = TrainSettings(steps=1, batch_size=batch_size)
    with pytest.raises(DataError, match=f"1 to 80, .*training images, found {batch_size}"):
        fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings)


def test_one_shape_decides_costs_and_the_exported_input(tmp_path):
    digits = few_digits()
    model = Net(digits.shape)
    fit(model, digits, cost_range=(100, 1e7), settings=TrainSettings(steps=1, batch_size=8))
    arch = model.space.largest
    net = extract(model, arch)
    assert MACs(model)(arch) == 8 * 8 * 4 * 9 + 4 * 10
    assert net.meta["example"].shape == digits.shape
    path = export(net, tmp_path / "net.pt2")
    images, _ = digits.test.take(torch.arange(3))
    exported = torch.export.load(path).module()
    values = data.normalize(images, digits.mean, digits.std)
    assert torch.allclose(exported(values), net(values), atol=1e-5)
