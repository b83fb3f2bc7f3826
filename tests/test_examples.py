"""The examples are whole jobs of at most 60 lines, and they run."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from tests.foreign_networks import foreign
from tests.test_init import images

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
JOBS = {
    "tabular_regression": "R² .*, test ",
    "multi_label_images": "mean average precision .* %",
    "segmentation": "mean IoU .* %",
    "text_classification": "accuracy .* %",
    "own_network": "accuracy .* % validation, .* % test",
    "attentive_nas": "accuracy .* % validation, .* % test",
}
LONGER = {"attentive_nas": 110}
"""A published space, stem to head, beside its job."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_at_most_sixty_lines(path):
    assert len(path.read_text().splitlines()) <= LONGER.get(path.stem, 60)


def word_lists():
    """Files of a hundred words each, in the folder where the test runs."""
    for name, letters in (("hard", "bcdfg"), ("soft", "aeiou")):
        words = (a + b + c for a in letters for b in letters for c in letters)
        Path(f"{name}.txt").write_text("\n".join(words))
    return ["hard.txt", "soft.txt"]


def photos():
    """A folder of pictures, for a network of torchvision, which is imported by its helper."""
    foreign("torchvision")
    return plain_photos()


def plain_photos():
    """A folder of pictures."""
    images(Path("photos"), {"cat": 30, "dog": 30})
    return ["photos"]


FILES = {
    "text_classification": word_lists,
    "own_network": photos,
    "attentive_nas": plain_photos,
}
STAGES = {"one": ((16, 24), (1, 2), (1,), 1, False), "two": ((16, 24), (1,), (2, 3), 2, True)}
SMALLER = {
    "attentive_nas": {"image_size": 8, "sizes": (8, 12), "stages": STAGES},
    "own_network": {"size": 16},
}
"""Than published."""


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_from_data_to_a_front(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = next(p for p in EXAMPLES if p.stem == name)
    with torch.random.fork_rng(devices=[]):
        files = FILES.get(name, list)()
        own = SMALLER.get(name, {})
        runpy.run_path(str(path))["main"](*files, steps=3, rounds=0, **own)
    lines = capsys.readouterr().out.splitlines()
    assert all(re.search(JOBS[name], line) for line in lines if "MACs" in line)
    assert any("MACs" in line for line in lines)
