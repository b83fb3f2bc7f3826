from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.foreign_networks import foreign
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from boundnas import Supernet, elastic, extract, models
from boundnas.cost import MACs, Parameters
from boundnas.errors import CostError, SpaceError
from boundnas.models import TransformerTable, VisionTransformer
from boundnas.models.parts import scaled
from boundnas.settings import SpaceSettings
from boundnas.settings.sections import OTHERS


@pytest.mark.parametrize(
    ("family", "dimensions", "smallest", "largest"),
    [
        ("mobilenet_v2", 43, 2.37, 158.41),
        ("mobilenet_v3", 57, 2.37, 163.14),
        ("mobilenet_v3_55", 55, 2.37, 161.30),
        ("width_only", 25, 3.38, 106.68),
        ("width_kernel", 33, 3.64, 120.89),
        ("width_depth", 35, 2.37, 138.06),
    ],
)
def test_the_spaces_of_the_paper_have_its_dimensions_and_mmacs(
    family, dimensions, smallest, largest
):
    model = seeded(lambda: models.paper_space(family, image_size=32, classes=100))
    assert len(model.space) == dimensions
    assert [round(macs / 1e6, 2) for macs in MACs(model).reach] == [smallest, largest]


def test_a_configuration_can_name_every_family():
    allowed = get_args(SpaceSettings.model_fields["family"].annotation)
    assert list(allowed) == [*models.FAMILIES, *models.NETWORKS]
    assert set(models.NETWORKS) == OTHERS


PUBLISHED = {"resnet": ("resnet34", 96), "convnext": ("convnext_tiny", 96)}


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_largest_network_of_a_family_is_the_published_one(family):
    name, size = PUBLISHED[family]
    model = seeded(lambda: models.NETWORKS[family](1.0, size, classes=1000))
    net = seeded(getattr(foreign("torchvision.models"), name)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, size, size))
    assert 2 * MACs(model).reach[1] == counter.get_total_flops()
    assert Parameters(model).reach[1] == sum(p.numel() for p in net.parameters())


def test_the_largest_vit_is_deit_tiny():
    table = TransformerTable((192,), (3,), (768,), (11, 12))
    model = seeded(lambda: VisionTransformer(table, 16, 224, classes=1000)).to("meta")
    assert (MACs(model).reach[1], Parameters(model).reach[1]) == (1_253_683_200, 5_717_416)
    space = seeded(lambda: models.vit(1.0, 224)).space
    largest = {d.name.split(".")[-1]: d.choices[-1] for d in space.dimensions}
    assert largest == {"width": 192, "depth": 12, "heads": 3, "hidden": 768}
    assert len(space) == 26


def test_the_smaller_v3_space_searches_nothing_more_in_the_last_block():
    whole, smaller = (
        {d.name for d in seeded(lambda f=f: models.paper_space(f, 0.25)).space.dimensions}
        for f in ("mobilenet_v3", "mobilenet_v3_55")
    )
    assert whole - smaller == {"stage7.se", "stage7.activation"}
    assert smaller < whole


def test_the_choices_of_the_paper_are_eighths_and_depths():
    space = seeded(lambda: models.mobilenet_v2(image_size=32)).space
    choices = {d.name: d.choices for d in space.dimensions}
    assert choices["stem.width"] == (4, 8, 12, 16, 20, 24, 28, 32)
    assert choices["stage2.layer4.width"] == (24, 36, 54, 72, 90, 108, 126, 144)
    assert choices["stage7.output"] == (40, 80, 120, 160, 200, 240, 280, 320)
    assert choices["stage6.depth"] == (1, 2, 3, 4)
    assert "stage7.depth" not in choices
    assert choices["stage7.kernel"] == (3, 5)


@pytest.mark.parametrize(("size", "resolution"), [(32, 4), (64, 8), (96, 3), (224, 7)])
def test_strides_follow_the_size_of_the_images(size, resolution):
    model = seeded(lambda: models.mobilenet_v2(0.05, image_size=size))
    shapes = []
    model.last.register_forward_hook(lambda *call: shapes.append(call[-1].shape[-1]))
    MACs(model)
    assert set(shapes) == {resolution}


widths = st.lists(st.integers(1, 2000), min_size=1, unique=True).map(sorted)


@given(widths, st.floats(0.001, 4))
def test_scaled_choices_ascend_and_start_at_one_channel_or_more(choices, width):
    found = scaled(choices, width)
    assert list(found) == sorted(set(found))
    assert 1 <= len(found) <= len(choices)
    assert found[0] >= 1
    assert found[-1] == max(1, int(choices[-1] * width + 0.5))


@given(widths)
def test_the_width_multiplier_one_changes_nothing(choices):
    assert list(scaled(choices, 1.0)) == choices


@given(widths, st.floats(0.001, 4), st.floats(0.001, 4))
def test_a_larger_multiplier_never_gives_fewer_channels(choices, a, b):
    small, large = sorted((a, b))
    assert scaled(choices, small)[-1] <= scaled(choices, large)[-1]
    assert scaled(choices, small)[0] <= scaled(choices, large)[0]


def test_an_unknown_family_names_those_there_are():
    message = "'resnet'; allowed are mobilenet_v2, mobilenet_v3, mobilenet_v3_55, width_only"
    with pytest.raises(SpaceError, match=message):
        models.mobilenet.tables("resnet")


@pytest.mark.parametrize("name", SPACES)
def test_counting_leaves_the_model_as_it_is(name):
    model = supernet(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    MACs(model)
    assert not any(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("lower", "upper"), [(1e3, 2e3), (1e9, 2e9)], ids=["below", "above"])
def test_a_range_that_no_network_meets_names_the_reachable_one(lower, upper):
    cost = MACs(supernet("own_stages"))
    smallest, largest = (f"{macs / 1e6:.6g}" for macs in cost.reach)
    message = (
        rf"no network of this space costs {lower / 1e6:g} to {upper / 1e6:g} MMACs: "
        rf"they reach from {smallest} to {largest} MMACs; choose a range that overlaps this"
    )
    with pytest.raises(CostError, match=message):
        cost.check_range(lower, upper)


@pytest.mark.parametrize(("lower", "upper"), [(2e6, 1e6), (1e6, 1e6), (0, 1e6), (-1, 1e6)])
def test_a_range_that_does_not_ascend_is_refused(lower, upper):
    with pytest.raises(CostError, match=r"a cost range is 0 < lower < upper, .*found"):
        MACs(supernet("own_stages")).check_range(lower, upper)


def test_a_range_that_overlaps_the_reach_is_accepted():
    cost = Parameters(supernet("own_stages"))
    smallest, largest = cost.reach
    for lower, upper in [(1, smallest), (largest, 2 * largest), (1, 2 * largest)]:
        cost.check_range(lower, upper)


class Unused(Supernet):
    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (2, 4))
        self.conv, self.forgotten = elastic.Conv2d(3, width), nn.Linear(3, 2)

    def forward(self, x, arch):
        return self.conv(x, arch).mean((2, 3))


def test_a_layer_that_nothing_uses_has_no_known_cost():
    with pytest.raises(
        CostError, match="no architecture that was tried uses forgotten, so the cost is not known"
    ):
        MACs(seeded(Unused))


class Tokens(Supernet):
    """Every pixel of a plain convolution passes a plain linear layer by itself."""

    def __init__(self):
        super().__init__((3, 4, 4))
        self.grouped = nn.Conv2d(3, 6, 3, padding=1, groups=3)
        self.mixer = nn.Linear(6, 5)
        self.head = elastic.Linear(5, self.dimension("width", (2, 4)))

    def forward(self, x, arch):
        tokens = self.mixer(self.grouped(x).flatten(2).transpose(1, 2))
        return self.head(tokens.mean(1), arch)


def test_plain_layers_count_at_every_position():
    model = seeded(Tokens)
    positions = 16
    plain = positions * 6 * 9 + positions * 6 * 5
    assert MACs(model).reach == (plain + 5 * 2, plain + 5 * 4)
    assert model(images(model, 2), model.space.largest).shape == (2, 4)


class Tied(Supernet):
    """Two plain layers of one weight; in a stage, or not."""

    def __init__(self, staged):
        super().__init__((3, 4, 4))
        self.staged = staged
        layers = [Plainly(nn.Conv2d(3, 3, 1)) for _ in range(2)]
        layers[1].layer.weight = layers[0].layer.weight
        if staged:
            layers = [Plainly(nn.Conv2d(3, 3, 1)), *layers]
            layers = [elastic.Stage(layers, self.dimension("depth", (1, 2, 3), "depth"))]
        self.parts = nn.ModuleList(layers)
        self.head = elastic.Conv2d(3, self.dimension("width", (2, 4)))

    def forward(self, x, arch):
        for part in self.parts:
            x = part(x, arch)
        return self.head(x, arch).mean((2, 3))


class Plainly(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, arch):
        return self.layer(x)


def test_a_weight_of_two_plain_layers_counts_once():
    model = seeded(lambda: Tied(False))
    for arch in (model.space.smallest, model.space.largest):
        held = extract(model, arch).parameters()
        assert Parameters(model)(arch) == sum(p.numel() for p in held)


def test_a_weight_of_layers_that_are_not_always_used_is_refused():
    with pytest.raises(CostError, match=r"parts.0.1.layer and parts.0.2.layer have one parameter"):
        Parameters(seeded(lambda: Tied(True)))


class Letters(Supernet):
    """A last layer that is tied to a table, which only some networks look letters up in."""

    def __init__(self):
        super().__init__(torch.arange(5))
        self.width = self.dimension("width", (2, 4))
        self.looks = self.dimension("looks", (1, 2))
        self.one, self.other = (elastic.Embedding(5, self.width) for _ in range(2))
        self.head = elastic.Linear(self.width, 5, tied=self.one)

    def forward(self, x, arch):
        table = self.one if arch[self.looks] == 1 else self.other
        return self.head(table(x, arch), arch).mean(1)


def test_a_weight_that_counts_with_a_table_that_is_not_always_used_is_refused():
    with pytest.raises(CostError, match="head is tied to a table that is not in every network"):
        Parameters(seeded(Letters))


class Windows(Supernet):
    """Linear layers on windows of every sample, which lie along the first axis; or on weights."""

    def __init__(self, of_weights=False):
        super().__init__((8, 6))
        width = self.dimension("width", (2, 4))
        self.table = nn.Parameter(torch.rand(5, 6)) if of_weights else None
        self.first, self.second = elastic.Linear(6, width), elastic.Linear(width, 3)

    def forward(self, x, arch):
        if self.table is not None:
            return self.second(self.first(x, arch) + self.first(self.table, arch).mean(0), arch)
        windows = x.reshape(-1, 4, 6)
        return self.second(self.first(windows, arch), arch).reshape(-1, 8, 3).mean(1)


def test_layers_count_in_every_window_of_a_sample():
    model = seeded(Windows)
    for arch in (model.space.smallest, model.space.largest):
        net = extract(model, arch)
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 8, 6))
        assert 2 * MACs(model)(arch) == counter.get_total_flops() > 0


def test_a_layer_of_weights_alone_has_no_cost_per_image():
    with pytest.raises(CostError, match=r"first multiplies .* or weights where it"):
        MACs(seeded(lambda: Windows(of_weights=True)))
