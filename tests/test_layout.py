"""Images come in the layout that convolutions are quickest in, unless forward has a view of one."""

import pytest
import torch
from tests.small import COST_RANGE, mobilenet
from torch.utils.data import TensorDataset

import boundnas as bn
from boundnas import elastic
from boundnas.guard import layout
from boundnas.guard.layout import laid_out, takes_channels_last
from boundnas.search import Evaluator


class Viewing(bn.Supernet):
    """Takes a view that maps have in the usual layout only."""

    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", [2, 4])
        with torch.random.fork_rng(devices=[]):
            self.conv = elastic.Conv2d(1, width, 3)
            self.head = elastic.Linear(width, 10)

    def forward(self, x, arch):
        y = self.conv(x, arch)
        return self.head(y.view(y.shape[0], -1).unflatten(1, (-1, 64)).mean(2), arch)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def dataset(channels=1, samples=64):
    return TensorDataset(drawn(samples, channels, 8, 8), torch.arange(samples) % 10)


def seen_by(model, of):
    """Whether pixels of every map that modules of a kind were given lay together."""
    found = []

    def note(_, arguments):
        x = getattr(arguments[0], "active", arguments[0])
        if isinstance(x, torch.Tensor):  # no proxy of a trace
            found.append(len(x) > 3 and x.stride(1) == 1)  # no batch of the guard

    for module in model.modules():
        if isinstance(module, of):
            module.register_forward_pre_hook(note)
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_users_images_are_trained_and_searched_with_in_channels_last_layout(channels):
    data = bn.Data(dataset(channels), test=dataset(channels))
    model = mobilenet(in_channels=channels)
    found = seen_by(model, elastic.DepthwiseConv2d)
    settings = bn.TrainSettings(steps=2, batch_size=8)
    run = bn.fit(model, data, cost_range=COST_RANGE, settings=settings)
    assert sum(found) >= 2 * 4  # passes of a step
    found.clear()
    evaluator = Evaluator(model, data, bn.SearchSettings(batch_size=8), 0)
    evaluator(run.model.space.smallest)
    assert sum(found) >= 2  # calibration and validation


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_forward_that_takes_a_view_gets_the_usual_layout(channels_last):
    model, x = Viewing(), dataset()[:][0]
    if channels_last:
        x = x.as_strided(x.shape, (64, 1, 8, 1))
    given = laid_out(model, x)
    assert not takes_channels_last(model)
    assert given.stride() == (64, 64, 8, 1)
    assert torch.equal(given, x)
    model(given, model.space.largest)


def test_a_network_with_a_view_trains_on_images_that_the_library_made_channels_last():
    settings = bn.TrainSettings(steps=2, batch_size=8)
    model = Viewing()
    reach = bn.cost.MACs(model).reach
    run = bn.fit(model, bn.data.digits(), cost_range=reach, settings=settings)
    assert len(run.metrics) == 2


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 8, 8), (5, 1, 1, 1), (5, 3, 1, 8)])
def test_the_layout_changes_no_value(shape):
    model, x = mobilenet(in_channels=shape[1]), drawn(*shape)
    given = laid_out(model, x)
    assert takes_channels_last(model)
    assert given.stride(1) == 1
    assert torch.equal(given, x)


@pytest.mark.parametrize(
    "other",
    [
        drawn(5, 3),
        drawn(5, 3, 4),
        drawn(5, 3, 4, 4, 4),
        torch.zeros(5, 3, 4, 4, dtype=torch.int64),
    ],
    ids=lambda x: f"{x.dim()} axes, {x.dtype}",
)
def test_what_is_no_image_stays_as_it_is(other):
    model, image = mobilenet(in_channels=3), drawn(5, 3, 8, 8)
    assert laid_out(model, other) is other
    assert model not in layout._TAKES  # nothing to try
    given = laid_out(model, {"image": image, "others": (other,)})
    assert given["others"][0] is other
    assert given["image"].stride(1) == 1


def test_trying_a_layout_leaves_model_and_generators_as_they_were():
    model = mobilenet()
    next(iter(model.children())).eval()  # frozen
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    laid_out(model, torch.zeros(2, *model.input_shape))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_layout_is_found_before_candidates_run_side_by_side():
    model = mobilenet(in_channels=1)
    Evaluator(model, bn.Data(dataset(), test=dataset()), bn.SearchSettings(), 0)
    assert layout._TAKES[model]
