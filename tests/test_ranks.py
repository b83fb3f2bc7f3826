"""Several processes train and search as one would: architectures, images, gradients, front."""

import json
from functools import partial
from shutil import copytree

import pytest
import torch
from tests.extension.people import people
from tests.extension.ranking import Ages
from tests.reliability.ranks import finish, together
from tests.reliability.tiny import configure, run, uninterrupted
from tests.small import few_digits
from tests.spaces import seeded
from tests.test_extension import COST_RANGE as PEOPLE_RANGE
from tests.test_extension import Net
from torch import nn

from boundnas import SearchSettings, TrainSettings, elastic, fit, search
from boundnas import open as open_run
from boundnas.engine import ranks
from boundnas.errors import DataError
from boundnas.randomness import stream
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl
from boundnas.supernet.supernet import Supernet

STEPS = 6

PEOPLE = {"cost_range": PEOPLE_RANGE, "settings": TrainSettings(steps=12, batch_size=20)}
FEW = SearchSettings(initial=3, rounds=1, crossovers=1, mutations=1, batch_size=20)


class WithoutNorm(Supernet):
    """Convolutions of searched width, kernel and depth, and no BatchNorm."""

    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", (4, 6, 8))
        kernel = self.dimension("kernel", (3, 5), "kernel")
        depth = self.dimension("depth", (1, 2, 3), "depth")
        self.first = elastic.Conv2d(1, width, 3)
        layers = [elastic.Conv2d(width, width, kernel) for _ in range(3)]
        self.stage = elastic.Stage(layers, depth)
        self.activation = nn.ReLU()
        self.classifier = elastic.Linear(width, 10)

    def forward(self, x, arch):
        x = self.activation(self.stage(self.activation(self.first(x, arch)), arch))
        return self.classifier(x.mean((2, 3)), arch)


def without_norm():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WithoutNorm()


def train(path):
    """Train in a folder; note the architectures of every pass beside it, by rank."""
    drawn = []
    model = without_norm()
    settings = TrainSettings(
        steps=STEPS,
        batch_size=16,
        checkpoint_every=2,
        start_std=1e-3,
        start_temperature=1.0,
        ghost_fraction=1,  # of a part of the batch, ranks take other samples
    )
    model.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1].indices))
    if ranks.rank() == 0:
        RunFolder.create(path, "name: run\n")
    ranks.wait("before the folder is there")
    folder = RunFolder.open(path)
    trained = fit(model, few_digits(), cost_range=(2e4, 6e4), settings=settings, folder=folder)
    (path.parent / f"drawn-{ranks.size()}-{ranks.rank()}.json").write_text(json.dumps(drawn))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, policy in trained.boundaries.items():
        state[name] = policy.logits.detach().clone()
    torch.save(state, path.parent / f"state-{ranks.size()}-{ranks.rank()}.pt")


def flat(row):
    """A row of metrics with the costs of each role beside the rest."""
    costs = {f"{k} {n}": row[k][n] for k in ("cost_max", "cost_min") for n in row[k]}
    return {k: v for k, v in row.items() if not isinstance(v, dict)} | costs


def trained_by(size, folder):
    def work():
        with ranks.connected(60):
            train(folder / str(size))

    codes, texts = finish(together(work, folder, size))
    assert codes == [0] * size, texts
    return [torch.load(folder / f"state-{size}-{rank}.pt") for rank in range(size)], texts


def test_ranks_without_batch_norm_give_what_one_process_gives(tmp_path):
    (alone,), _ = trained_by(1, tmp_path)
    drawn = [json.loads((tmp_path / "drawn-1-0.json").read_text())]
    for size in (2, 4):
        states, texts = trained_by(size, tmp_path)
        for rank, state in enumerate(states):
            drawn.append(json.loads((tmp_path / f"drawn-{size}-{rank}.json").read_text()))
            for name, value in state.items():
                assert torch.equal(value, states[0][name]), "ranks stay equal bit for bit"
                # Sums are taken in another order, and six steps amplify the last bits.
                torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
        assert "train  step" in texts[0]
        assert not any("train  step" in text for text in texts[1:])
        logged, expected = (read_jsonl(tmp_path / str(n) / "metrics.jsonl") for n in (size, 1))
        for row, one in zip(logged, expected, strict=True):
            assert flat(row) == pytest.approx(flat(one), rel=1e-4, abs=1e-6)
    assert all(each == drawn[0] for each in drawn), "the same architectures bit for bit"


RECIPES = {
    "gradients that are projected": ({"steps": 2, "conflict": "project"}, 1e-6),
    "all at once": (
        {"steps": 7, "accumulate": 2, "mixup": 0.4, "cutmix": 1.0, "ema": 0.9}, 1e-5,
    ),
}  # fmt: skip
"""What looks at the whole batch, or at what became of it; and how far its sums may lie apart."""


@pytest.mark.parametrize(("recipe", "apart"), RECIPES.values(), ids=RECIPES)
def test_several_ranks_with_a_recipe_give_what_one_process_gives(recipe, apart, tmp_path):
    settings = TrainSettings(batch_size=16, start_std=1e-3, start_temperature=1.0, **recipe)

    def work(size):
        with ranks.connected(60):
            model = without_norm()
            fit(model, few_digits(), cost_range=(2e4, 6e4), settings=settings)
            torch.save(model.state_dict(), tmp_path / f"{size}-{ranks.rank()}.pt")

    for size in (1, 2):
        codes, texts = finish(together(lambda size=size: work(size), tmp_path, size))
        assert codes == [0] * size, texts
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name], rtol=10 * apart, atol=apart)


def test_the_parts_of_a_batch_are_the_batch():
    digits, order = few_digits(), torch.arange(70, 58, -1)
    whole, labels = digits.augmented(order, stream(0, "augment", 3))
    for size in (2, 3):
        parts = [
            digits.augmented(order, stream(0, "augment", 3), slice(i, i + 12 // size))
            for i in range(0, 12, 12 // size)
        ]
        assert torch.equal(torch.cat([images for images, _ in parts]), whole)
        assert torch.equal(torch.cat([each for _, each in parts]), labels)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 3)
    with pytest.raises(DataError, match="batch_size is 16, which 3 processes cannot share equally"):
        ranks.share(16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of the tiny run of one process."""
    return uninterrupted(tmp_path_factory.mktemp("whole"))


def searched(folder):
    held = folder / "runs" / "tiny"
    return (held / "search" / "evaluations.jsonl").read_bytes(), (held / "front.json").read_bytes()


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_search_as_one_process_does(size, whole, tmp_path):
    configure(tmp_path)
    for name in ("checkpoints", "config.yaml", "bounds.json", "boundaries.jsonl", "metrics.jsonl"):
        for file, content in whole.items():
            if file.startswith(name):
                path = tmp_path / "runs" / "tiny" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    codes, texts = finish(together(run, tmp_path, size))
    assert codes == [0] * size, texts
    found = searched(tmp_path)
    assert found == (whole["search/evaluations.jsonl"], whole["front.json"])
    assert "Front" in texts[0]
    assert all(not text for text in texts[1:])


def people_by(size, folder):
    """Train on people, whose faces are drawn noisy, and search a copy of what one process trained.

    Gives what each rank's networks saw, and its weights.
    """

    def work():
        seen = []
        with ranks.connected(60):
            rank, data = ranks.rank(), people(workers=size - 1)
            model = seeded(partial(Net, data.example))
            model.register_forward_pre_hook(lambda _, given: seen.append(given[0]["face"]))
            run = fit(model, data, task=Ages(), folder=folder / str(size), **PEOPLE)
            faces = [x.clone() for x in seen if type(x) is torch.Tensor and len(x) == 20 // size]
            state = {name: value.clone() for name, value in model.state_dict().items()}
            torch.save((faces, state), folder / f"{size}-{rank}.pt")
            if size == 1:
                copytree(folder / "1", folder / "copy")
            else:
                model = seeded(partial(Net, data.example))
                run = open_run(folder / "copy", model=model, data=data, task=Ages())
            search(run, FEW)

    codes, texts = finish(together(work, folder, size))
    assert codes == [0] * size, texts
    return [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)]


def test_ranks_read_any_dataset_as_one_process_does(tmp_path):
    """Also where its transforms draw from the generators of other libraries, and workers read."""
    ((whole, alone),) = people_by(1, tmp_path)
    (first, weights), (second, others) = people_by(2, tmp_path)
    assert len(whole) == len(first) == len(second)
    for batch, *parts in zip(whole, first, second, strict=True):
        assert torch.equal(torch.cat(parts), batch), "each reads its part of the same samples"
    assert not torch.equal(whole[0], whole[-1])
    for name, value in weights.items():
        assert torch.equal(value, others[name])
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
    for name in ("front.json", "search/evaluations.jsonl"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
