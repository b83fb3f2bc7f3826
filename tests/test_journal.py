import json
import os
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small import ACCURACY

from boundnas.errors import RunError
from boundnas.randomness import stream
from boundnas.search.bench import Bench
from boundnas.search.journal import Evaluation, Journal
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.store.records import EvaluationRecord
from boundnas.store.vouched import vouched

SPACE = SearchSpace(
    [
        Dimension("width", (8, 16, 24)),
        Dimension("ratio", (0.25, 0.5)),
        Dimension("se", (False, True)),
        Dimension("activation", ("relu", "swish")),
    ]
)
WHOLE = st.integers(1, 10**15)
OTHER_SPACE = SearchSpace([Dimension("width", (8, 16, 24))])
IDENTITY = {"weights": "those", "seed": "0"}
METRIC = {"name": "accuracy", "unit": "%", "scale": 100.0}
COSTS = {
    "macs": lambda arch: 100 + sum(arch.indices),
    "parameters": lambda arch: 10 + sum(arch.indices),
}


def opened(path, space=SPACE, identity=IDENTITY, costs=COSTS):
    return Journal(path, space, identity, costs, ACCURACY)


def evaluations(count):
    generator = stream(0, "test")
    architectures = {}
    while len(architectures) < count:
        architectures[SPACE.sample(generator)] = None
    return [
        Evaluation(a, {name: cost(a) for name, cost in COSTS.items()}, i / 7, 50)
        for i, a in enumerate(architectures)
    ]


def write(path, items):
    with opened(path) as journal:
        for item in items:
            journal.append(item)


@given(
    indices=st.tuples(*(st.integers(0, len(d) - 1) for d in SPACE.dimensions)),
    costs=st.fixed_dictionaries(
        {"macs": WHOLE, "parameters": WHOLE}, optional={"latency": WHOLE, "score": WHOLE}
    ),
    score=st.floats(0, 1),
    images=st.integers(1, 10**9),
)
def test_an_evaluation_survives_json(indices, costs, score, images):
    architecture = Architecture(SPACE, indices)
    evaluation = Evaluation(architecture, costs, score, images)
    assert (
        Evaluation.of(
            EvaluationRecord.model_validate_json(json.dumps(evaluation.record().written())), SPACE
        )
        == evaluation
    )


def test_a_journal_is_read_back_in_order_and_goes_on(tmp_path):
    path = tmp_path / "search" / "evaluations.jsonl"
    items = evaluations(6)
    write(path, items[:4])
    write(path, items[4:])
    with opened(path) as journal:
        assert list(journal.values()) == items
        assert journal[items[3].architecture] == items[3]
    head, first, *_ = map(json.loads, path.read_text().splitlines())
    assert head == {"identity": IDENTITY, "metric": METRIC, "sum": head["sum"]}
    assert list(first) == ["architecture", "costs", "score", "images", "sum"]


def test_a_journal_cut_at_any_byte_keeps_every_complete_line_and_goes_on(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    items = evaluations(3)
    write(path, items)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = max(0, whole[:length].count(b"\n") - 1)
        with opened(path) as journal:
            assert list(journal.values()) == items[:complete]
            for item in items[complete:]:
                journal.append(item)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 20, b"{\n", b"\xff\n", b"7\n", b"[" * 10**5 + b"\n"])
def test_a_last_line_that_does_not_parse_is_cut(tmp_path, tail):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(2))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with opened(path) as journal:
        assert len(journal) == 2
    assert path.read_bytes() == whole


def spoil(row, **changes):
    return json.dumps({k: v for k, v in (row | changes).items() if v is not None})


def said_anew(row, before, **changes):
    """Another row with the sum that fits."""
    row = {k: v for k, v in row.items() if k != "sum"} | changes
    return json.dumps(vouched(row, before))


SPOILT = [
    (lambda row: "not json", "is no JSON object"),
    (lambda row: "", "is no JSON object"),
    (lambda row: spoil(row, costs=None), "costs: Field required"),
    (lambda row: spoil(row, costs=[100, 10]), "costs: Input should be an object"),
    (lambda row: spoil(row, costs={"macs": 100}), "no parameters among the costs"),
    (lambda row: spoil(row, costs={"macs": 1.5, "parameters": 10}), r"costs\.macs: .*integer"),
    (lambda row: spoil(row, costs=row["costs"] | {"latency": True}), r"latency: .*integer"),
    (lambda row: spoil(row, costs=row["costs"] | {"latency": "8"}), r"latency: .*integer"),
    (lambda row: spoil(row, costs=row["costs"] | {"latency": -1}), "no cost is below"),
    (lambda row: spoil(row, costs=row["costs"] | {"macs": 0}), "macs and .* are above 0"),
    (lambda row: spoil(row, costs=row["costs"] | {"macs": True}), r"costs\.macs: .*integer"),
    (lambda row: spoil(row, images=0), "images: .*greater than or equal to 1"),
    (lambda row: spoil(row, images=True), "images: .*integer"),
    (lambda row: spoil(row, score="0.5"), "score: .*number"),
    (lambda row: spoil(row, score=float("nan")), "score: .*finite"),
    (lambda row: spoil(row, architecture=[1]), "architecture: Input should be an object"),
    (lambda row: spoil(row, extra=1), "extra: Extra inputs are not permitted"),
    (lambda row: spoil(row, score=1), "is not what was written there by its sum"),
    (lambda row: spoil(row, score=99.0), "is not what was written there by its sum"),
    (lambda row: spoil(row, images=49), "is not what was written there by its sum"),
    (lambda row: spoil(row, sum=None), "is not what was written there by its sum"),
    (
        lambda row, before: said_anew(row, before, costs=row["costs"] | {"macs": 1}),
        "says .* of a network that has",
    ),
    (
        lambda row, before: said_anew(row, before, architecture={"width": 8}),
        "is of another search space: .*ratio",
    ),
]


@pytest.mark.parametrize(("spoilt", "message"), SPOILT)
def test_a_bad_line_in_the_middle_is_named_and_the_file_left_alone(tmp_path, spoilt, message):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(3))
    lines = path.read_text().splitlines()
    rows = list(map(json.loads, lines[1:3]))
    known = (rows[1], rows[0]["sum"])
    lines[2] = spoilt(*known[: spoilt.__code__.co_argcount])
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    with pytest.raises(
        RunError, match=rf"evaluations\.jsonl, line 3: .*{message}.*remove this line"
    ):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["doubled", "left out", "exchanged", "of another journal"])
def test_lines_that_were_moved_are_named(change, tmp_path):
    path, other = tmp_path / "evaluations.jsonl", tmp_path / "other.jsonl"
    write(path, evaluations(4))
    lines = path.read_bytes().splitlines(keepends=True)
    with opened(other, identity=IDENTITY | {"seed": "1"}) as journal:
        for item in evaluations(4):
            journal.append(item)
    if change == "doubled":
        lines.insert(2, lines[2])
    elif change == "left out":
        del lines[2]
    elif change == "exchanged":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[2] = other.read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=r"line [34]: is not what was written there by its sum"):
        opened(path)
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("first", ["{}", '{"identity": {"weights": "those", "seed": "0"}}'])
def test_a_journal_that_does_not_say_what_was_measured_is_refused(first, tmp_path):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(2))
    path.write_text("\n".join([first, *path.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(RunError, match=r"line 1: .*does not say what was measured"):
        opened(path)


def test_a_journal_of_other_conditions_is_set_aside_by_name_and_answers_again_when_put_back(
    tmp_path, caplog
):
    path, items = tmp_path / "evaluations.jsonl", evaluations(3)
    write(path, items)
    before = path.read_bytes()
    for number in (1, 2):
        with opened(path, identity=IDENTITY | {"seed": str(number)}) as journal:
            assert len(journal) == 0
            journal.append(items[0])
        assert (tmp_path / f"evaluations-{number}.jsonl").exists()
        said = caplog.messages[-1]
        assert (
            f"seed = {number - 1}, this one has {number}; it is kept as evaluations-{number}"
            in said
        )
    assert (tmp_path / "evaluations-1.jsonl").read_bytes() == before
    path.write_bytes(before)
    with opened(path) as journal:
        assert list(journal.values()) == items


STATES = {
    "of this search": (IDENTITY, b""),
    "with a torn last line": (IDENTITY, b'{"architecture": {"wid'),
    "of another search": (IDENTITY | {"seed": "1"}, b""),
    "of another search, with a torn last line": (IDENTITY | {"seed": "1"}, b"{"),
    "not there": (None, b""),
}


@pytest.mark.parametrize(("identity", "tail"), STATES.values(), ids=STATES)
def test_whoever_only_reads_may_do_so_before_the_writer_has_opened_it_or_after(
    identity, tail, tmp_path
):
    path = tmp_path / "evaluations.jsonl"
    if identity is not None:
        with opened(path, identity=identity) as journal:
            for item in evaluations(3):
                journal.append(item)
        path.write_bytes(path.read_bytes() + tail)
    before = path.read_bytes() if path.exists() else None
    reads = partial(Journal, path, SPACE, IDENTITY, COSTS, ACCURACY, writes=False)
    found = [dict(reads())]
    assert (path.read_bytes() if path.exists() else None) == before
    with opened(path) as writer:
        found += [dict(reads()), dict(writer)]
    assert found == [found[0]] * 3
    assert len(found[0]) == (3 if identity == IDENTITY else 0)


def test_a_repeated_architecture_in_the_file_is_named(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(2))
    first, second = path.read_bytes().splitlines()[1:]
    row = {k: v for k, v in json.loads(first).items() if k != "sum"}
    again = vouched(row, json.loads(second)["sum"])  # made up with a sum that fits
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    with pytest.raises(RunError, match="line 4: repeats an architecture of an earlier line"):
        opened(path)


def test_a_journal_of_another_space_is_refused(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(2))
    with pytest.raises(RunError, match="line 2: is of another search space"):
        opened(path, OTHER_SPACE)


@pytest.mark.parametrize("names", [("macs", "parameters", "latency"), ("macs",)])
def test_a_journal_of_other_costs_is_refused(tmp_path, names):
    path = tmp_path / "evaluations.jsonl"
    write(path, evaluations(2))
    message = f"line 2: has the costs macs, parameters, while this search needs {', '.join(names)}"
    with pytest.raises(RunError, match=message):
        opened(path, costs=dict.fromkeys(names, COSTS["macs"]))


def test_an_architecture_is_never_journalled_twice(tmp_path):
    (item,) = evaluations(1)
    with opened(tmp_path / "evaluations.jsonl") as journal:
        journal.append(item)
        with pytest.raises(AssertionError, match="evaluated twice: width="):
            journal.append(item)


def test_each_evaluation_is_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    path = tmp_path / "evaluations.jsonl"
    with opened(path) as journal:
        for item in evaluations(3):
            journal.append(item)
            assert synced[-1] == path.stat().st_size


def test_only_what_the_journal_lacks_is_measured_and_written_at_once(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    items = evaluations(5)
    known = {item.architecture: item for item in items}
    asked = []

    def measure_one(architecture):
        asked.append(architecture)
        assert path.read_bytes().count(b"\n") == 2 + len(asked), "the one before is on disk"
        return known[architecture]

    with opened(path) as journal:
        journal.append(items[2])
        journal.append(items[0])
        assert Bench(partial(map, measure_one), journal=journal)(list(known)) == items
    assert asked == [items[1].architecture, items[3].architecture, items[4].architecture]
