"""A table from measured blocks, in a runtime whose times are known exactly."""

import logging
from functools import cache
from itertools import count, pairwise

import pytest
import torch
from tests.latency import Fake, registered

import boundnas as bn
from boundnas import elastic
from boundnas.cost import Latency, LatencyTable, MACs
from boundnas.errors import CostError, RunError
from boundnas.latency import fit, measure
from boundnas.latency.bench import TRIES, Noise
from boundnas.latency.grid import Plan
from boundnas.latency.measuring import BLOCK_ROUNDS, _Measurement
from boundnas.latency.timing import Times
from boundnas.randomness import stream
from boundnas.report import draw
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.store.files import canonical_json
from boundnas.supernet.extract import outlined


class Small(bn.Supernet):
    """Three layers and two widths: a plan of some 20 blocks, and 12 networks."""

    def __init__(self):
        super().__init__((3,))
        first = self.dimension("first", (2, 4, 6, 9))
        second = self.dimension("second", (1, 3, 5))
        self.one = elastic.Linear(3, first)
        self.two = elastic.Linear(first, second)
        self.three = elastic.Linear(second, 2)

    def forward(self, x, arch):
        x = self.two(self.one(x, arch).relu(), arch)
        return self.three(x.relu(), arch)


@pytest.fixture
def model():
    with torch.random.fork_rng():
        return Small()


def measured(model, kind=Fake, **settings):
    with registered(kind):
        return measure(model, runtime="fake", **settings)


def test_a_table_predicts_every_network_and_says_so(model):
    table = measured(model, batch=2)
    assert (table.runtime, table.runtime_version, table.batch, table.noise) == ("fake", "1", 2, 0.0)
    assert table.scale == pytest.approx(1, abs=1e-3)
    assert table.offset == pytest.approx(5_000, abs=10)
    assert table.validation.spearman == 1
    assert table.validation.error < 1e-4
    cost, fake = Latency(model, table), Fake()
    for number in range(5):
        arch = model.space.sample(stream(0, "any", number))
        takes = 5_000 + fake.nodes(outlined(model, arch))
        assert cost(arch) == pytest.approx(takes, abs=10)


def test_validation_holds_the_networks_that_were_not_fitted_to_with_what_macs_predict(model):
    table, macs = measured(model), MACs(model)
    sums = bn.cost.latency.predictions(model.space, table)
    archs = fit.spread_out(model.space, sums, seed=0)
    fake, (to_fit, others) = Fake(), fit.parted(len(archs))
    times = [fake.takes(outlined(model, arch)) for arch in archs]
    beside, each = fit.fitted([macs(archs[i]) for i in to_fit], [times[i] for i in to_fit])
    assert [n.measured for n in table.validation.networks] == [times[i] for i in others]
    assert [n.quartiles for n in table.validation.networks] == [(times[i],) * 2 for i in others]
    assert [n.macs for n in table.validation.networks] == [macs(archs[i]) for i in others]
    expected = [round(beside + each * macs(archs[i])) for i in others]
    assert [n.by_macs for n in table.validation.networks] == expected
    assert table.validation.error_by_macs > table.validation.error


def test_a_table_is_written_as_it_is_returned_and_nothing_else_is_left(model, tmp_path):
    path = tmp_path / "latency.json"
    table = measured(model, path=path)
    assert path.read_text() == canonical_json(table.written())
    assert LatencyTable.read(path) == table
    assert [p.name for p in tmp_path.iterdir()] == ["latency.json"]


def killed_after(calls):
    """A runtime whose process is killed at a call."""

    class Killed(Fake):
        def spend(self, nanoseconds):
            if self.calls == calls:
                raise KeyboardInterrupt
            super().spend(nanoseconds)

    return Killed


def test_what_was_measured_is_not_measured_again(model, tmp_path):
    path = tmp_path / "latency.json"
    with pytest.raises(KeyboardInterrupt):
        measured(model, killed_after(12_000), path=path)
    journal = tmp_path / "latency.json.journal"
    before = journal.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        measured(model, killed_after(10), path=path)
    assert journal.read_bytes() == before
    torn = before + b'{"names": ["torn'
    journal.write_bytes(torn)
    with pytest.raises(KeyboardInterrupt):
        measured(model, killed_after(10), path=path)
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "said"), [({"seed": 1}, "seed"), ({"batch": 2}, "batch"), ({}, "runtime")]
)
def test_a_journal_of_other_settings_is_kept_aside(model, tmp_path, caplog, other, said):
    class Newer(Fake):
        version = "2"

    path = tmp_path / "latency.json"
    with pytest.raises(KeyboardInterrupt):
        measured(model, killed_after(5_000), path=path)
    with caplog.at_level(logging.WARNING):
        table = measured(model, Fake if other else Newer, path=path, **other)
    assert table == measured(model, Fake if other else Newer, **other)
    assert f"was measured with another {said}; it is kept as latency.json-1.journal" in caplog.text
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"latency.json", "latency.json-1.journal"}


def test_a_damaged_journal_is_refused(model, tmp_path):
    path, journal = tmp_path / "latency.json", tmp_path / "latency.json.journal"
    with pytest.raises(KeyboardInterrupt):
        measured(model, killed_after(5_000), path=path)
    text = journal.read_text()
    journal.write_text(text.replace('"elapsed": ', '"elapsed": 1', 1))
    with pytest.raises(RunError, match=r"journal, line 2: .*; remove the file to measure anew"):
        measured(model, path=path)


def test_less_time_gives_a_coarser_table_and_too_little_is_refused(model, monkeypatch):
    monkeypatch.setattr("boundnas.latency.measuring.TOGETHER", 2)

    def entries(minutes):
        return sum(len(b.times) for b in measured(model, minutes=minutes).blocks)

    assert list(map(entries, (0.0015, 0.0022, 1, 15))) == [8, 14, 19, 19]
    message = r"minutes=0.0002 is not enough: 2 of 8 blocks .* give at least minutes=1; "
    with pytest.raises(CostError, match=message):
        measured(model, minutes=0.0002)


@pytest.mark.parametrize(("minutes", "planned"), [(0.0015, [0]), (0.0022, [0, 1]), (1, [0, 1, 2])])
def test_a_grid_is_planned_when_it_is_measured_and_not_where_time_is_over(
    model, monkeypatch, minutes, planned
):
    monkeypatch.setattr("boundnas.latency.measuring.TOGETHER", 2)
    done, complete, blocks = [], Plan._complete, _Measurement._blocks

    def noting_plan(self, level):
        done.append(level)
        complete(self, level)

    def noting_blocks(self, *given):
        done.append("timed")
        blocks(self, *given)

    monkeypatch.setattr(Plan, "_complete", noting_plan)
    monkeypatch.setattr(_Measurement, "_blocks", noting_blocks)
    measured(model, minutes=minutes)
    assert [each for each in done if each != "timed"] == planned
    assert all(done[done.index(level) + 1] == "timed" for level in planned)


def noisy(reference):
    """A runtime whose reference takes the times that a function gives of the number of its call."""

    class Noisy(Fake):
        def load(self, net, inputs):
            run = super().load(net, inputs)
            if type(net).__name__ != "Sequential":
                return run
            calls = count()
            return lambda: self.spend(round(200_000 * reference(next(calls))))

    return Noisy


def test_a_noisy_machine_is_refused_unless_the_noise_is_accepted(model):
    uneven = noisy(lambda n: 1 + 0.3 * (n // 3 % 2))
    message = r"too noisy: the same network takes 2\d% longer or shorter, and 10% is allowed; stop "
    with pytest.raises(CostError, match=message):
        measured(model, uneven)
    assert measured(model, uneven, noise=0.4).noise == pytest.approx(0.3 / 1.15, rel=0.2)


def test_a_machine_that_is_noisy_for_a_while_is_waited_for(model):
    rounds = sum(BLOCK_ROUNDS * 2**turn for turn in range(TRIES - 1))
    burst = noisy(lambda n: 1 + 0.3 * (n // 3 % 2) * (95 < n < 95 + 3 * rounds))
    table = measured(model, burst)
    assert table.noise == 0
    assert table.validation.spearman == 1


def test_a_machine_that_becomes_slower_is_refused(model):
    slower = noisy(lambda n: 1 + (n > 95))
    with pytest.raises(CostError, match=r"too noisy: it became 100% slower, and 10% is allowed"):
        measured(model, slower)


@cache
def usual():
    """The table of a machine that is always as fast."""
    with torch.random.fork_rng():
        return measured(Small())


@pytest.mark.parametrize("until", [100, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000])
def test_what_was_timed_before_a_machine_became_faster_is_timed_again(model, until):
    class Slow(Fake):
        def spend(self, nanoseconds):
            super().spend(nanoseconds * (2 if self.calls < until else 1))

    expected, found = usual(), measured(model, Slow)
    assert found.blocks == expected.blocks
    assert found.validation == expected.validation
    assert (found.offset, found.scale) == (expected.offset, expected.scale)


def test_noise_is_the_spread_within_batches_and_the_drift_between_them():
    steady = [Times(100, 98, 103), Times(100, 99, 101), Times(100, 97, 104)]
    assert Noise.of(steady) == Noise(spread=0.05, drift=0)
    drifting = [Times(n, n, n) for n in (100, 101, 102, 103, 104)]
    assert Noise.of(drifting) == Noise(spread=0, drift=2 / 102)


def test_a_block_that_cannot_run_is_named(model):
    class Picky(Fake):
        def load(self, net, inputs):
            if any(name.startswith("copy7") for name, _ in net.named_modules()):
                raise CostError("no such operator")
            return super().load(net, inputs)

    with pytest.raises(CostError, match=r"^[\w.]+: no such operator$"):
        measured(model, Picky)


@pytest.mark.parametrize("name", ["minutes", "batch", "noise"])
def test_settings_that_cannot_be_are_refused(model, name):
    with pytest.raises(CostError, match=f"measure: {name} is above 0, found 0"):
        measured(model, **{name: 0})


@pytest.mark.parametrize(
    ("times", "line"),
    [
        ([1_007, 2_007, 3_007], (7, 1000.0)),
        ([900, 2_000, 3_100], (-200, 1100.0)),
        ([500_000, 2_000_000, 3_500_000], (-217_502, 870_007.9)),
        ([3_000_000, 2_000_000, 1_000_000], (-115_456, 461_824.953)),
    ],
)
def test_lines_are_fitted_by_relative_error_and_take_off_a_quarter_of_the_smallest(times, line):
    found = fit.fitted([1, 2, 3], times)
    assert found == line

    def error(offset, scale):
        return sum(
            ((offset + scale * x) / y - 1) ** 2 for x, y in zip((1, 2, 3), times, strict=True)
        )

    offset, scale = found
    for factor in (0.999, 1.001):
        assert error(factor * offset, factor * scale) > error(offset, scale)
    assert offset >= -scale / 4 - 1


@pytest.mark.parametrize(("times", "offset"), [([9, 9, 9], 9), ([10, 20, 40], 13), ([7], 7)])
def test_a_line_over_nothing_is_the_offset_of_the_least_relative_error(times, offset):
    assert fit.fitted([0] * len(times), times) == (offset, 1.0)
    errors = [sum((o / t - 1) ** 2 for t in times) for o in (offset - 1, offset, offset + 1)]
    assert min(errors) == errors[1]


def test_blocks_that_take_no_time_are_refused(model, tmp_path):
    class Instant(Fake):
        def nodes(self, net):
            return 0

    path = tmp_path / "latency.json"
    message = (
        r"^no block of these .*: 3 blocks took 0 nanoseconds; measure more samples a pass, as in "
    )
    with pytest.raises(CostError, match=message):
        measured(model, Instant, path=path)
    assert not path.exists()


def test_networks_are_spread_over_the_range_with_its_ends():
    space = SearchSpace([Dimension(f"d{i}", (1, 2, 3, 4)) for i in range(12)])

    def predict(arch: Architecture) -> int:
        return round(1.7 ** sum(arch.indices))

    archs = fit.spread_out(space, predict, seed=0)
    assert len(set(archs)) == fit.FITTED + fit.CHECKED
    assert archs[0] == space.smallest
    assert archs[-1] == space.largest
    times = list(map(predict, archs))
    assert times == sorted(times)
    sums = [sum(arch.indices) for arch in archs]
    assert all(b - a <= 3 for a, b in pairwise(sums)), "a gap in the range"
    assert archs == fit.spread_out(space, predict, seed=0) != fit.spread_out(space, predict, seed=1)
    to_fit, others = fit.parted(len(archs))
    assert (len(to_fit), len(others)) == (fit.FITTED, fit.CHECKED)
    assert sorted(to_fit + others) == list(range(len(archs)))
    assert {to_fit[0], to_fit[-1]} == {0, len(archs) - 1}


def test_a_real_runtime_gives_a_table_that_a_search_takes(model, tmp_path):
    path = tmp_path / "latency.json"
    table = measure(model, path, minutes=2, noise=10)
    assert table.runtime == "onnxruntime"
    assert len(table.validation.networks) == 9
    lower, upper = Latency(model, path).reach
    assert 0 < lower <= upper < 10**9


def test_predictions_are_drawn_over_what_was_measured_beside_those_of_macs(model):
    table = measured(model)
    drawn = draw.predictions(table)
    assert drawn.startswith("<?xml")
    for words in ("measured, ms", "predicted, ms", "from the table", "from MACs", "±10 %"):
        assert words in drawn
    points = len(table.validation.networks)
    assert drawn.count("<use ") >= 2 * points
    assert draw.predictions(table.model_copy(update={"validation": None})) is None
