"""The comparison of networks by milliseconds and by MACs, from its command to its tables."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from studies import latency
from tests.test_studies import tiny
from tests.times import table_of
from typer.testing import CliRunner

from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.cost import Latency, LatencyTable
from boundnas.latency.timing import Times
from boundnas.store.files import write_json


def configuration(figure, variant, seed, *_):
    return tiny(f"tiny-W-{variant}-{seed}", seed, "both")


def measured(model, path):
    """A table with times that are exact."""
    table = table_of(model, 0)
    write_json(path, table.written())
    return table


def whole(networks, rounds):
    """Times from the number of weights, each a little above."""
    sizes = [100_000 + 100 * sum(p.numel() for p in net.parameters()) for net in networks]
    return [Times(size, size - rounds, size + rounds) for size in sizes]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a comparison of two seeds, what it said, and the runs that it started."""
    started = []

    def in_this_process(command, check):
        file, runs = Path(command[4]), Path(command[6])
        started.append(file.stem)
        pipeline.run(read_config(file), runs)
        return SimpleNamespace(returncode=0)

    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "configuration", configuration)
        patch.setattr(latency.bn.latency, "measure", measured)
        patch.setattr(latency, "whole", whole)
        patch.setattr(latency, "subprocess", SimpleNamespace(run=in_this_process))
        first = CliRunner().invoke(latency.app, [str(out), "--seeds", "2"])
        assert first.exit_code == 0, first.output
        patch.setattr(latency.bn.latency, "measure", None)
        again = CliRunner().invoke(latency.app, [str(out), "--seeds", "2"])
    assert again.stdout == first.stdout
    return out, first.stdout, started


def test_what_was_made_is_not_made_again(done):
    by_macs = [f"tiny-W-boundaries-{seed}" for seed in (0, 1)]
    by_latency = [f"tiny-latency-W-boundaries-{seed}" for seed in (0, 1)]
    assert done[2] == by_macs + by_latency


def test_runs_by_milliseconds_differ_in_their_cost_alone_and_reach_as_far(done):
    out, _, _ = done
    runs = out / "runs"
    names = ("tiny-W-boundaries-1", "tiny-latency-W-boundaries-1")
    by_macs, by_latency = (read_config(runs / f"{name}.yaml") for name in names)
    assert (by_macs.cost[0].metric, by_latency.name) == ("macs", names[1])
    same = {"name": by_macs.name, "cost": by_macs.cost}
    assert by_latency.model_copy(update=same) == by_macs
    (cost,) = by_latency.cost
    model = pipeline.Job.prepare(by_macs).model
    predict = Latency(model, LatencyTable.read(runs / "latency.json"))
    fronts = [json.loads((runs / f"tiny-W-boundaries-{n}/front.json").read_text()) for n in (0, 1)]
    times = [
        predict(model.space.architecture(n["architecture"])) for f in fronts for n in f["networks"]
    ]
    assert (cost.lower, cost.upper) == (min(times) / 1e6, max(times) / 1e6)


def test_every_network_of_every_front_has_a_row_with_its_time(done):
    out, _, _ = done
    held = json.loads((out / "latency.json").read_text())
    for by, kind in (("macs", ""), ("latency", "latency-")):
        for seed in (0, 1):
            front = json.loads(
                (out / f"runs/tiny-{kind}W-boundaries-{seed}/front.json").read_text()
            )
            rows = [r for r in held["rows"] if (r["by"], r["seed"]) == (by, seed)]
            networks = front["networks"] + front["outside"]
            for key in ("architecture", "validation", "test"):
                assert [r[key] for r in rows] == [n[key] for n in networks]
            assert [r["macs"] for r in rows] == [n["costs"]["macs"] for n in networks]
            if by == "latency":
                assert [r["predicted"] for r in rows] == [n["costs"]["latency"] for n in networks]
            assert all(low == r["measured"] - 30 for r in rows for low in r["quartiles"][:1])


def test_the_tables_have_each_seed_and_the_difference_with_its_interval(done):
    lines = done[1].strip().split("\n")[-7:]
    assert re.fullmatch(r"\| \|( at \d\.\d{3} ms \|){3} score \| hypervolume \|", lines[0])
    kinds = [line.split("|")[1].strip() for line in lines[2:]]
    assert kinds == [
        "by macs, seed 0", "by macs, seed 1", "by latency, seed 0", "by latency, seed 1",
        "by latency - by macs",
    ]  # fmt: skip
    cells = [[float(c.strip(" %").split(" ")[0]) for c in x.split("|")[2:-1]] for x in lines[2:]]
    for *parts, difference in zip(*cells, strict=True):
        assert difference == pytest.approx((sum(parts[2:]) - sum(parts[:2])) / 2, abs=0.02)
    assert re.search(r"\([+-]\d+\.\d\d to [+-]\d+\.\d\d\) \|$", lines[-1])


def test_times_are_compared_from_where_every_front_has_a_network():
    def rows(by, seed, *times):
        return [
            {"by": by, "seed": seed, "measured": t, "validation": t / 1e6, "test": t / 1e6}
            for t in times
        ]

    fronts = [("macs", 0, 1e5, 4e5), ("macs", 1, 2e5), ("latency", 0, 1e5), ("latency", 1, 1e5)]
    found = [row for front in fronts for row in rows(*front)]
    assert latency.fastest_common(found) == 2e5
    lines = list(latency.told(found, (0.05, 0.32)))
    assert lines[0] == "| | at 0.225 ms | at 0.253 ms | at 0.285 ms | score | hypervolume |"
    assert lines[2] == "| by macs, seed 0 | 10.00 % | 10.00 % | 10.00 % | 10.00 % | 6.88 % |"
    assert lines[3] == "| by macs, seed 1 | 20.00 % | 20.00 % | 20.00 % | 20.00 % | 7.50 % |"


def test_the_table_in_the_docs_is_what_the_committed_rows_tell():
    results = Path(__file__).parents[1] / "docs" / "results"
    held = json.loads((results / "latency" / "search.json").read_text())
    assert (
        "\n".join(latency.told(held["rows"], held["range"])) in (results / "latency.md").read_text()
    )
