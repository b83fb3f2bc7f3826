"""Ground truth: what is measured, and what is told of it."""

import json
import math
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from studies.alone import train_alone
from studies.truth import __main__ as command
from studies.truth.measured import ALONE, BOUNDS, INHERITED, begin, measure, rows
from studies.truth.page import each_seed, tables
from studies.truth.space import BOUNDARIES, Setting, halved, setting
from studies.truth.told import Truth, boxes, by_chance, numbers
from tests.small import few_digits

import boundnas as bn
from boundnas.cost import MACs
from boundnas.data import InMemory, TrainingOrder
from boundnas.errors import RunError
from boundnas.fit.schedule import learning_rate
from boundnas.space import Architecture

OPTIONS = {
    "stem.kernel": (3,),
    "early.width": (4,),
    "late.width": (4, 6, 8),
    "late.depth": (1, 2),
    "late.kernel": (3,),
}


def small():
    """Six networks of digits, five steps each."""
    return Setting(
        data=few_digits(),
        options=OPTIONS,
        train=bn.TrainSettings(epochs=1, batch_size=16),
        lengths=(1,),
        cost_range=(26_500, 29_400),
        search=bn.SearchSettings(calibration_images=32, batch_size=32),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the study makes of it with one seed."""
    out = tmp_path_factory.mktemp("truth")
    begin(small(), out)
    measure(small(), out, seeds=1)
    return out


def lines(out, name):
    """All lines of a file, without the time they took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out / name)]


def test_every_network_is_measured_alone_and_in_every_supernet(measured):
    networks = [list(n) for n in product(*(range(len(v)) for v in OPTIONS.values()))]
    assert [row["network"] for row in lines(measured, ALONE)] == networks
    found = [(row["supernet"], row["network"]) for row in lines(measured, INHERITED)]
    assert found == [(kind, network) for kind in BOUNDARIES for network in networks]
    space = small().model(0).space
    for row in lines(measured, ALONE):
        assert row["macs"] == MACs(small().model(0))(Architecture(space, tuple(row["network"])))
    kept = {row["supernet"]: row["allowed"] for row in lines(measured, BOUNDS)}
    assert kept["fixed"] == [[0], [0], [0, 1, 2], [0, 1], [0]]
    assert kept["clipped"] == [[0], [0], [0, 1], [0, 1], [0]]


def test_a_killed_study_goes_on_to_the_same_numbers(measured, tmp_path):
    out = shutil.copytree(measured, tmp_path / "killed")
    for name, number in ((ALONE, 3), (INHERITED, 11), (BOUNDS, 1)):
        text = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(text[:number]) + text[number][:20])  # torn in a line
    measure(small(), out, seeds=1)
    for name in (ALONE, INHERITED, BOUNDS):
        assert lines(out, name) == lines(measured, name)


def test_nothing_is_measured_twice(measured, monkeypatch):
    before = {name: (measured / name).read_bytes() for name in (ALONE, INHERITED, BOUNDS)}
    monkeypatch.setattr(bn, "fit", None)
    measure(small(), measured, seeds=1)
    assert before == {name: (measured / name).read_bytes() for name in before}


CHANGED = {
    "the range": {"cost_range": (1.0, 2.0)},
    "the training": {"train": bn.TrainSettings(epochs=2, batch_size=16)},
    "the calibration": {"search": bn.SearchSettings(calibration_images=64, batch_size=32)},
    "the space": {"options": {**OPTIONS, "late.kernel": (5,)}},
    "the images": {"data": replace(few_digits(), flip=True)},
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=CHANGED)
def test_numbers_of_another_setting_are_not_mixed_in(changes, measured):
    before = (measured / "setting.json").read_bytes()
    with pytest.raises(RunError, match="were measured in another setting"):
        begin(replace(small(), **changes), measured)
    assert (measured / "setting.json").read_bytes() == before


def test_a_setting_that_a_later_release_adds_is_no_other_setting(measured, tmp_path):
    held = json.loads((measured / "setting.json").read_text())
    del held["train"]["mixup"]
    (tmp_path / "setting.json").write_text(json.dumps(held))
    begin(small(), tmp_path)
    held["train"]["gone"] = 1
    (tmp_path / "setting.json").write_text(json.dumps(held))
    with pytest.raises(RunError, match="were measured in another setting"):
        begin(small(), tmp_path)


def test_a_network_alone_has_weights_for_its_own_size_drawn_by_the_seed():
    alone = small().model(3, (0, 0, 2, 1, 0))
    assert alone.space.size == 1
    assert list(alone.space.largest.values.values()) == [3, 4, 8, 2, 3]
    assert alone.early.conv.weight.shape[0] == 4
    same, other = (small().model(seed, (0, 0, 2, 1, 0)) for seed in (3, 4))
    assert torch.equal(alone.head.weight, same.head.weight)
    assert not torch.equal(alone.head.weight, other.head.weight)


def test_a_network_alone_is_trained_as_the_settings_say_one_pass_a_step():
    settings = bn.TrainSettings(epochs=1, batch_size=16, learning_rate=0.3, clip_value=0.01)
    data, task = few_digits(), bn.tasks.Classification()
    net, by_hand = (small().model(0, (0, 0, 2, 1, 0)) for _ in range(2))
    train_alone(net, data, task, settings, seed=5)
    each = list(by_hand.parameters())
    momentum = [torch.zeros_like(p) for p in each]
    order = TrainingOrder(80, 16, 5)
    for step, (images, labels) in enumerate(data.training(order, 0, 5, slice(None))):
        logits = by_hand(data.ready(images, torch.device("cpu")), by_hand.space.largest)
        loss = task.loss(logits, labels)
        gradients = torch.autograd.grad(loss, each)
        rate = learning_rate(step, 5, 0.3, settings)
        for p, moved, gradient in zip(each, momentum, gradients, strict=True):
            pull = gradient.clamp(-0.01, 0.01) + (5e-4 if p.dim() > 1 else 0) * p.detach()
            moved.mul_(0.9).add_(pull)
            p.data -= rate * (pull + 0.9 * moved)
    assert not any(module.training for module in net.modules())
    for trained, expected in zip(net.parameters(), each, strict=True):
        torch.testing.assert_close(trained, expected)


def test_supernets_train_as_networks_alone_do_but_for_boundaries_and_length():
    asked = replace(small(), lengths=(1, 4))
    plain = bn.TrainSettings(epochs=1, batch_size=16).model_dump()
    assert list(asked.supernets)[3:5] == [("learned from the clip", 1), ("fixed", 4)]
    for kind, length in asked.supernets:
        found = asked.training(kind, length).model_dump()
        assert found == {**plain, "epochs": length, **BOUNDARIES[kind]}


def test_images_are_halved_to_the_mean_of_two_by_two_pixels():
    images = torch.zeros(2, 1, 4, 6, dtype=torch.uint8)
    images[1, 0, 2:, 4:] = torch.tensor([[10, 20], [31, 41]])
    source = halved(InMemory(images, torch.tensor([1, 0])), 2)
    expected = torch.zeros(2, 1, 2, 3, dtype=torch.uint8)
    expected[1, 0, 1, 2] = 26  # of 25.5
    assert torch.equal(source.images, expected)
    assert source.labels.tolist() == [1, 0]


def test_the_study_has_243_networks_of_which_its_clip_leaves_108(monkeypatch):
    monkeypatch.setattr("studies.truth.space.small_images", few_digits)
    asked = setting()
    assert len(asked.networks) == 243
    assert {len(values) for values in asked.options.values()} == {3}


COMMITTED = Path(__file__).parents[1] / "docs" / "results" / "truth"


def test_what_is_committed_are_networks_of_the_study_each_once(monkeypatch):
    monkeypatch.setattr("studies.truth.space.small_images", few_digits)
    found, networks = rows(COMMITTED / ALONE), setting().networks
    assert {"seed", "network", "macs", "validation", "test", "seconds"} == set(found[0])
    each = [(row["seed"], tuple(row["network"])) for row in found]
    assert each == [(s, n) for s in range(1 + each[-1][0]) for n in networks][: len(each)]


def test_the_tables_in_the_docs_are_those_of_the_committed_numbers():
    found = json.loads((COMMITTED / "truth.json").read_text())
    page = COMMITTED.with_suffix(".md").read_text()
    for table in tables(found).strip().split("\n\n"):
        assert table in page


# Told: a space of two dimensions, whose numbers are written by hand.
FEW = Setting(
    data=None,  # type: ignore[arg-type]
    options={"a": (1, 2, 3), "b": (5, 7)},
    train=bn.TrainSettings(epochs=1),
    lengths=(1,),
    cost_range=(2.0, 8.0),
    search=bn.SearchSettings(),
)
MACS = [1, 2, 4, 4, 8, 16]
VALIDATION = [[0.4, 0.5, 0.6, 0.7, 0.6, 0.9], [0.4, 0.7, 0.8, 0.7, 0.8, 0.9]]
TEST = [[0.3, 0.5, 0.4, 0.6, 0.7, 0.8], [0.3, 0.5, 0.6, 0.8, 0.7, 0.9]]
WHICH = {"supernet": "learned", "length": 1, "seed": 0}


def truth():
    return Truth(FEW.networks, *map(np.array, (MACS, VALIDATION, TEST)), FEW.cost_range)


def test_the_true_front_is_that_of_the_mean_over_seeds_inside_the_range():
    # Of two networks of 4 MACs with 0.7 on validation data the first; test data would take the
    # second. 8 MACs are no better; 16 lie outside.
    assert truth().front == [1, 2]
    assert truth().wanted.tolist() == [False, True, True, True, True, False]


def test_recall_is_the_share_of_the_true_front_inside():
    assert truth().recall(truth().within([[0], [0, 1]])) == 0.5
    assert truth().recall(truth().within([[0, 1], [0, 1]])) == 1
    assert truth().within([[0, 2], [1]]).tolist() == [False, True, False, False, False, True]


def test_a_score_reads_test_data_where_validation_chooses():
    found, everything = truth(), np.ones(6, bool)
    alone = np.array(TEST).mean(0)
    # 0.5 from 2 to 4 MACs, then the first of 4 MACs; half of the logarithm each.
    assert found.score(found.mean, alone, everything) == pytest.approx((0.5 + 0.5) / 2)
    others = np.array([0, 1, 2, 3, 4, 5.0])
    assert found.score(others, alone, everything) == pytest.approx((0.5 + 0.7) / 2)
    at = found.at(others, found.within([[1, 2], [0, 1]]))
    assert at == [None, None, pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7)]


def test_rank_correlations_pair_validation_with_test_scores_of_each_seed(monkeypatch):
    monkeypatch.setattr("studies.truth.told.FEWEST", 6)
    found, everything = truth(), np.ones(6, bool)
    rising = np.arange(6.0)
    assert found.tau(rising, everything) == pytest.approx((13 / 15 + 13 / 15) / 2)
    assert found.tau(-rising, everything) == pytest.approx(-13 / 15)
    assert found.tau(rising, found.wanted) is None
    assert found.ceiling(found.wanted) is None
    one, other = (tau_b(VALIDATION[a], TEST[1 - a]) for a in (0, 1))
    assert found.ceiling(everything) == pytest.approx((one + other) / 2)
    assert replace(found, test=found.test[:1]).ceiling(everything) is None


def tau_b(x, y):
    """Kendall's, from its definition."""
    pairs = [(x[i] - x[j], y[i] - y[j]) for i in range(len(x)) for j in range(i)]
    agree = sum(math.copysign(1, a * b) for a, b in pairs if a * b)
    return agree / math.sqrt(sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs))


def test_bounds_are_compared_with_all_bounds_of_as_many_networks():
    found = truth()
    every = list(map(found.within, boxes(FEW)))
    assert len(every) == 6 * 3
    # Two networks: one of a with both b (front 1, 1, 0 of 2), or two of a with one b (1, 1, 1, 0).
    one = found.within([[0], [0, 1]])
    assert by_chance(found, every, one) == {
        "recall": pytest.approx((0.5 + 0.5 + 0 + 0.5 + 0.5 + 0.5 + 0) / 7),
        "useful": pytest.approx((0.5 + 0.5 + 0 + 0.5 + 0.5 + 0.5 + 0) / 7),
        "as_good": pytest.approx(5 / 7),
    }
    # Two in the range, as only four of these have: 2 and 3; 2 and 4; 1 and 3.
    two = found.within([[1], [0, 1]])
    assert by_chance(found, every, two)["useful"] == pytest.approx((0.5 + 0.5 + 0.5) / 3)


@pytest.fixture
def written(tmp_path):
    """Lines of two seeds alone, of a third that is not whole, and of one supernet."""

    def write(name, found):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found))

    alone = [
        {"seed": s, "network": n, "macs": m, "validation": v, "test": t}
        for s in (1, 0)
        for n, m, v, t in zip(FEW.networks, MACS, VALIDATION[s], TEST[s], strict=True)
    ]
    write(ALONE, [*alone, {**alone[0], "seed": 2}])
    inherited = [
        {**WHICH, "network": n, "validation": i / 10, "test": i / 20}
        for i, n in enumerate(FEW.networks)
    ]
    write(INHERITED, [*inherited, *({**row, "seed": 1} for row in inherited[:-1])])
    write(BOUNDS, [{**WHICH, "allowed": [[0, 1], [1]]}])
    return tmp_path


def test_numbers_are_those_of_whole_seeds(written):
    found = numbers(FEW, written)
    assert found["seeds"] == 2
    assert [each["network"] for each in found["front"]] == [{"a": 1, "b": 7}, {"a": 2, "b": 5}]
    assert found["front"][1]["test"] == pytest.approx(0.5)
    (only,) = found["supernets"]
    assert {name: only[name] for name in WHICH} == WHICH
    assert (only["networks"], only["wanted"], only["recall"]) == (2, 2, 0.5)
    assert only["alone"] == pytest.approx((0.5 + 0.7) / 2)
    assert only["inherited"] == pytest.approx((0.05 + 0.15) / 2)
    assert only["best_inside"] == pytest.approx((0.5 + 0.7) / 2)
    assert only["by_chance"]["useful"] == pytest.approx(0.5)


def test_a_study_without_a_whole_seed_tells_nothing(written):
    lines = (written / ALONE).read_text().splitlines(keepends=True)
    (written / ALONE).write_text("".join(lines[:5]))
    with pytest.raises(RunError, match="holds no seed of which all 6 networks were trained"):
        numbers(FEW, written)


def test_the_tables_say_means_and_each_seed(written):
    said = tables(numbers(FEW, written))
    assert "| 4 | 2 | 5 | 70.00 % | 50.00 % |" in said
    assert "| learned | 1x | 2 | 2 | 0.50 | 0.36 | 0.50 | 1.00 |" in said
    assert "| learned | 1x | -10.00 | -10.00 | +40.00 |" in said
    assert each_seed([0.5, 0.7, None]) == "0.60 (0.50, 0.70)"
    assert each_seed([0.501, 0.499]) == "0.50"
    assert each_seed([None]) == "none"


def test_the_command_tells_what_is_there_and_measures_nothing(written, monkeypatch, capsys):
    monkeypatch.setattr(command, "setting", lambda: FEW)
    monkeypatch.setattr(command, "begin", lambda *_: None)
    monkeypatch.setattr(command, "measure", None)
    monkeypatch.setattr("sys.argv", ["truth", str(written), "--told"])
    with pytest.raises(SystemExit, match="0"):
        command.run()
    assert tables(numbers(FEW, written)) in capsys.readouterr().out
    assert json.loads((written / "truth.json").read_text())["seeds"] == 2
    drawing = (written / "truth.svg").read_text()
    for label in ("alone (2 seeds)", "inside the learned bounds", "true front", "cost range"):
        assert label in drawing
