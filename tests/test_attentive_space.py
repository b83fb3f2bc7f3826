"""AttentiveNAS' space, which an example writes: its published networks are in it, to the MAC."""

import pytest
import torch
from tests.costs import counted_macs, counted_parameters, example

from boundnas import extract
from boundnas.cost import MACs, Parameters
from boundnas.space import Statistics
from boundnas.supernet.calibrate import Seen

attentive_nas = example("attentive_nas")

WIDTHS = ["first", *attentive_nas.STAGES, "last"]
PUBLISHED = {  # millions of MACs, resolution, widths, kernels, expand ratios, depths
    "A0": (203, 192, (16, 16, 24, 32, 64, 112, 192, 216, 1792), "3333333", "1444466", "1333331"),
    "A1": (279, 224, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1444466", "1333331"),
    "A2": (317, 224, (16, 16, 24, 32, 64, 112, 200, 224, 1984), "3333353", "1454466", "1333341"),
    "A3": (357, 224, (16, 16, 24, 32, 64, 112, 208, 224, 1984), "3335333", "1444466", "2334351"),
    "A4": (444, 256, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1445466", "1334351"),
    "A5": (491, 256, (16, 16, 24, 32, 72, 112, 192, 216, 1792), "3335333", "1454466", "1333461"),
    "A6": (709, 288, (16, 16, 24, 32, 64, 112, 216, 224, 1984), "3333353", "1465466", "1334461"),
}


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return attentive_nas.AttentiveNAS()


def published(space, name):
    """The architecture of a published network."""
    _, resolution, widths, *others = PUBLISHED[name]
    values = {"resolution": resolution}
    values |= {f"{key}.width": width for key, width in zip(WIDTHS, widths, strict=True)}
    for kind, digits in zip(("kernel", "expand", "depth"), others, strict=True):
        stages = zip(attentive_nas.STAGES, map(int, digits), strict=True)
        values |= {f"{stage}.{kind}": value for stage, value in stages}
    return space.architecture(values)


class Taken(Statistics):
    """Those of one batch."""

    def __init__(self, model, arch, x):
        seen = Seen()
        model(x, arch.carrying(statistics=seen))
        self.moments = seen.moments

    def of(self, layer, x):
        return self.moments[layer][0]


@pytest.fixture(scope="module")
def costs(model):
    return MACs(model), Parameters(model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_is_in_the_space_and_costs_what_was_published(
    name, model, costs, monkeypatch
):
    arch, (macs, parameters) = published(model.space, name), costs
    assert round(macs(arch) / 1e6) == PUBLISHED[name][0]
    monkeypatch.setattr("boundnas.supernet.extract._check", lambda *_: None)  # of values
    x = torch.empty(2, *model.input_shape, device="meta")
    net, x = extract(model, arch.carrying(statistics=Taken(model, arch, x))), x[:1]
    assert macs(arch) == counted_macs(net, x)
    assert parameters(arch) == counted_parameters(net, x)


def test_the_space_reaches_from_203_to_1939_millions(costs):
    smallest, largest = costs[0].reach
    assert (smallest // 10**6, largest // 10**6) == (203, 1939)
