"""Models of other inputs than images: rows, sequences, tokens, several tensors; from an example."""

import math

import pytest
import torch
from tests.small import digest
from torch import nn

from boundnas import Supernet, calibrate, elastic, export, extract, guard
from boundnas.cost import MACs, Parameters
from boundnas.deploy.formats import input_names
from boundnas.errors import CalibrationError, SpaceError
from boundnas.fit.start import check_forward
from boundnas.guard.learnable import check_learnable, check_used
from boundnas.randomness import stream
from boundnas.search.canonical import Canonical
from boundnas.supernet.inputs import noise, zeros


@pytest.fixture(autouse=True)
def _own_draws():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Rows(Supernet):
    """Numbers of a table."""

    def __init__(self, example=(5,)):
        super().__init__(example)
        width = self.dimension("width", [4, 8])
        self.hidden, self.head = elastic.Linear(5, width), elastic.Linear(width, 3)

    def forward(self, x, arch):
        return self.head(self.hidden(x, arch).relu(), arch)


class Tokens(Rows):
    """Means of embedded tokens; numbers of tokens must be those of the embedding."""

    def __init__(self):
        super().__init__(torch.tensor([3, 6, 6, 1]))
        self.embedding = nn.Embedding(7, 5)

    def forward(self, x, arch):
        return super().forward(self.embedding(x).mean(1), arch)


class Both(Tokens):
    """Tokens with a mask, in a dict, and numbers beside them."""

    def __init__(self):
        super().__init__()
        ids = torch.tensor([3, 6, 6, 1])
        self.example = {"ids": ids, "mask": ids > 2, "rest": (torch.zeros(5), torch.ones(2))}

    def forward(self, x, arch):
        numbers, pair = x["rest"]
        kept = self.embedding(x["ids"]) * x["mask"].unsqueeze(-1)
        mixed = kept.mean(1) + numbers * pair.mean(1, keepdim=True)
        return self.head(self.hidden(mixed, arch).relu(), arch)


class Signal(Supernet):
    """A sequence of numbers, flattened."""

    def __init__(self):
        super().__init__((4, 3))
        width = self.dimension("width", [4, 8])
        self.hidden, self.head = elastic.Linear(12, width), elastic.Linear(width, 3)

    def forward(self, x, arch):
        return self.head(self.hidden(x.flatten(1), arch).relu(), arch)


MODELS = {kind.__name__: kind for kind in (Rows, Tokens, Both, Signal)}
FILES = {
    "Rows": ["input"],
    "Tokens": ["input"],
    "Both": ["ids", "mask", "rest_0", "rest_1"],
    "Signal": ["input"],
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_any_input_is_checked_counted_and_extracted(name, tmp_path):
    model = MODELS[name]()
    before = digest(model)
    guard.check(model)
    cost = MACs(model)
    check_used(model, cost.dimensions)
    check_learnable(model)
    check_forward(model)
    inner = 12 if name == "Signal" else 5
    assert [cost(a) for a in (model.space.smallest, model.space.largest)] == [
        (inner + 3) * width for width in (4, 8)
    ]
    embedded = 35 if name in ("Tokens", "Both") else 0
    assert Parameters(model)(model.space.smallest) == embedded + 4 * inner + 4 + 12 + 3
    inputs = noise(model, 6, stream(0, "inputs"))
    for arch in (model.space.smallest, model.space.largest):
        net = extract(model, calibrate(model, arch, [inputs]))
        assert torch.equal(net(inputs), model(inputs, arch))
        assert Canonical(model, model.space.whole)(arch) == arch
    for suffix in ("pt2", "onnx"):
        assert export(net, tmp_path / f"net.{suffix}").stat().st_size > 1000
    assert input_names(net.meta["example"]) == FILES[name]
    assert digest(model) == before


def test_noise_of_whole_numbers_holds_none_that_the_example_does_not():
    model = Both()
    drawn = noise(model, 200, stream(0, "many"))
    assert set(drawn["ids"].flatten().tolist()) == {1, 3, 6}
    assert drawn["mask"].dtype == torch.bool
    assert drawn["rest"][0].shape == (200, 5)
    assert abs(float(drawn["rest"][0].std()) - 1) < 0.1
    empty = zeros(model, 3)
    assert empty["ids"].tolist() == [[3, 6, 6, 1]] * 3
    assert not empty["rest"][1].any()


NO_INPUTS = {
    "a row alone": (Rows, torch.zeros(5), r"shape \(N, 5\), found \(5,\); add the batch axis"),
    "rows too wide": (Rows, torch.zeros(2, 6), r"shape \(N, 5\), found \(2, 6\)"),
    "rows of another type": (Rows, torch.zeros(2, 5).double(), r"are torch.float64 .*float32\)$"),
    "tokens as numbers": (Tokens, torch.zeros(2, 4), "are torch.float32 not torch.int64"),
    "a batch of pairs": (Rows, (torch.zeros(2, 5),), r"float32 of shape \(5,\); found .* at \[0\]"),
    "no dict": (Both, torch.zeros(2, 5), r"int64 of shape \(4,\) at \['ids'\].*; found float32"),
    "another key": (Both, {"tokens": torch.zeros(2)}, r"found float32 of shape \(2,\) at \['tok"),
}


@pytest.mark.parametrize(("kind", "x", "message"), NO_INPUTS.values(), ids=NO_INPUTS)
def test_what_is_no_input_of_a_model_is_refused(kind, x, message):
    model = kind()
    with pytest.raises(SpaceError, match=message):
        model(x, model.space.largest)
    with pytest.raises(CalibrationError, match="calibration batch 0"):
        calibrate(model, model.space.largest, [x])


NO_EXAMPLES = {
    "a text": ("images", "found images"),
    "nothing": ((), r"found \(\)"),
    "a part that is none": ({"ids": [torch.zeros(2), "x"]}, r"found a str at \['ids'\]\[1\]"),
    "doubles": (torch.zeros(3, dtype=torch.float64), "found float64 of shape"),
    "an empty tensor": (torch.zeros(0), r"found float32 of shape \(0,\)"),
    "no tensors": ({"ids": ()}, "found no tensor"),
    "a part of a pixel": ((1, 2.5), r"found \(1, 2.5\)"),
}


@pytest.mark.parametrize(("example", "message"), NO_EXAMPLES.values(), ids=NO_EXAMPLES)
def test_what_is_no_example_is_refused(example, message):
    with pytest.raises(SpaceError, match=f"input_shape is .*one sample as a tensor .*{message}"):
        Rows(example)


def test_an_example_is_held_as_a_copy():
    example = torch.zeros(5)
    model = Rows(example)
    example += math.nan
    assert not model.example.isnan().any()
    assert model.input_shape == Rows().input_shape == (5,)
