"""Where boundaries ended, by kind of dimension: what a study reads off finished runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from studies.bounds import held, table
from tests.small import COST_RANGE, few_digits, mobilenet

from boundnas import TrainSettings, fit
from boundnas.errors import RunError
from boundnas.store.records import BoundsRecord

CHOICES = {"a": [2, 4, 8], "b": [10, 20], "only": [3]}


def record(**allowed):
    """What a run ended with that left these options of two widths."""
    row = {"kind": "width", "max": [], "min": []}
    dimensions = [
        {"name": name, "choices": choices, "allowed": allowed.get(name, choices), **row}
        for name, choices in CHOICES.items()
    ]
    start = {"p_largest": 1.0, "p_smallest": 1.0, "identity": {}, "weights": "", "logs": {}}
    return BoundsRecord(dimensions=dimensions, **start)


def test_boundaries_are_told_by_kind_with_what_differs_between_dimensions_and_between_seeds():
    runs = [record(a=[2, 4]), record(a=[4, 8], b=[20])]
    assert table(runs).splitlines()[2:] == [
        "| width | lower | 0.56 | 0.38 to 0.75 | 0.19 | 0.20 |",  # 1/4 and 1/2, 1/2 and 1
        "| width | upper | 0.88 | 0.75 to 1.00 | 0.12 | 0.18 |",  # 1/2 and 1, 1 and 1
    ]


def test_a_table_is_made_of_run_folders(tmp_path):
    settings = TrainSettings(steps=2, batch_size=16, checkpoint_every=1)
    fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, folder=tmp_path / "a")
    command = [sys.executable, "-m", "studies.bounds", str(tmp_path / "a")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said == table([held(tmp_path / "a")]) + "\n"
    kinds = [line.split(" | ")[0] for line in said.splitlines()[2::2]]
    assert kinds == [f"| {kind}" for kind in ("width", "depth", "kernel", "se", "activation")]
    (tmp_path / "a" / "bounds.json").unlink()
    with pytest.raises(RunError, match="its training has not ended"):
        held(tmp_path / "a")


ROOT = Path(__file__).parents[1]
