"""``boundnas init``: a configuration that fits the images, with a comment on every key."""

import logging
import re
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from tests.test_cli import call, rows

from boundnas.app import proposal
from boundnas.app.pipeline import Job
from boundnas.app.proposal import about, propose
from boundnas.config import read_config


def images(folder, counts, size=(9, 11), grey=False):
    """Images of noise, each class with a tint of its own if they have colours."""
    generator = np.random.default_rng(0)
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 120, (*size, 1 if grey else 3), dtype=np.uint8)
            pixels = np.broadcast_to(pixels, (*size, 3)).copy()
            pixels[..., slice(None) if grey else c % 3] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


SPLITS = {"train/a": 9, "train/b": 7, "val/a": 3, "val/b": 4, "test/a": 5, "test/b": 6}
FOLDERS = {  # name, images of each class, what they look like; side and batch size that fit
    "small": ("photos", {"cat": 40, "dog": 40, "owl": 40}, {}, 8, 16),
    "large": ("photos", {"a": 6, "b": 6}, {"size": (90, 300)}, 64, 2),
    "tiny": ("photos", {"a": 8, "b": 8}, {"size": (3, 5)}, 8, 2),
    "grey, in splits": ("photos", SPLITS, {"size": (24, 24), "grey": True}, 24, 4),
    "odd names": ("-my photos: 2{0}", {"é ü": 5, "{classes}": 5}, {}, 8, 2),
}


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def untried(monkeypatch):
    """No step is tried to tell the time of all."""
    monkeypatch.setattr(proposal.Proposal, "seconds", lambda self: 400.0)


@pytest.mark.parametrize("case", [None, *FOLDERS])
@pytest.mark.usefixtures("untried")
def test_what_is_written_is_read_as_it_was_meant_and_can_be_run(case, inside, caplog):
    name, counts, look, side, batch = FOLDERS.get(case, ("", {}, {}, None, 64))
    arguments = ["--data", str(images(inside / name, counts, **look))] if case else []
    done = call("init", *arguments)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (
        "Wrote run.yaml. Next: boundnas run run.yaml\nOn this machine it takes about 7 minutes.\n"
    )
    config = read_config("run.yaml")
    assert config == propose(inside / name if case else None).job.config
    assert (config.data.image_size, config.train.batch_size) == (side, batch)
    assert config.export.formats == ("onnx", "pt2", "int8")
    caplog.clear()
    job = Job.prepare(config)
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r for r in said if r.name != "boundnas.data.readable"] == []  # the range is in reach
    ((cost, (lower, upper)),) = job.budgets
    assert 1.5 * cost.reach[0] < lower < upper < cost.reach[1]
    text = (inside / "run.yaml").read_text()
    lines = [line for line in text.splitlines() if line]
    assert max(map(len, lines)) < 120
    for number, line in enumerate(lines[2:], 2):
        assert "  # " in line or lines[number - 1].lstrip().startswith("# ") or line[2:4] == "# "
    if case:
        data = job.data
        assert (
            f"{len(data.classes)} classes; images: {len(data.train)} to train, "
            f"{len(data.validation)} to select, {len(data.test)} to test\n"
        ) in text
        height, width = look.get("size", (9, 11))
        colours = "grey" if look.get("grey") else "colours"
        assert config.data.channels == data.shape[0] == (1 if colours == "grey" else 3)
        assert f"pixels per side; shorter sides have {min(height, width)}, {colours}\n" in text
    assert f"begins at {cost.reach[0] / 1e6:.3g}\n" in text
    assert f"ends at {cost.reach[1] / 1e6:.3g}\n" in text


def test_sides_that_differ_are_told_with_their_median(inside):
    for side in (10, 20, 70):
        images(inside / "p" / f"of {side}", {"x": 1}, size=(side, 100))
    (inside / "p" / "x.png").write_bytes(b"damaged, which is for others to say")
    seen = proposal.look(inside / "p")
    assert proposal._sides(seen) == "shorter sides have 10 to 70, median 20, colours"
    assert proposal.look(inside / "nowhere") is None


@pytest.mark.parametrize("place", ["@eaDir", "x/__MACOSX", ".thumbnails/more", "x"])
def test_images_that_are_no_samples_are_not_looked_at(place, inside):
    images(inside / "p", {"x": 3, "y": 3}, size=(10, 12), grey=True)
    seen = proposal.look(inside / "p")
    images(inside / "p" / place, {".hidden" if place == "x" else "a": 9}, size=(70, 70))
    shutil.copy(inside / "p" / place / ("a" if place != "x" else ".hidden") / "0.png",
                inside / "p" / "y" / ".copy.png")  # fmt: skip
    assert proposal.look(inside / "p") == seen


@pytest.mark.parametrize(
    ("train", "steps", "batch"),
    [(3, 1000, 2), (8, 1000, 2), (100, 1000, 16), (5000, 2343, 64), (10**6, 20_000, 64)],
)
def test_steps_and_batch_size_follow_the_number_of_images(train, steps, batch):
    found = proposal._training(train)
    assert (found.steps, found.batch_size) == (steps, batch)


@pytest.mark.parametrize(
    ("text", "name"),
    [("photos", "photos"), ("My photos (2)", "My-photos-2"), ("é", "images"), (".x", "x"),
     ("x" * 200, "x" * 100)],
)  # fmt: skip
def test_the_run_is_named_after_the_folder(text, name):
    assert proposal._name(text) == name


@pytest.mark.usefixtures("untried")
def test_a_file_that_is_there_is_never_overwritten(inside):
    (inside / "run.yaml").write_text("mine")
    refused = call("init")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "run.yaml: is there already; name another file by --out" in refused.stderr
    assert (inside / "run.yaml").read_text() == "mine"
    (inside / "link.yaml").symlink_to("nowhere")
    assert call("init", "--out", "link.yaml").exit_code == 2
    assert call("init", "--out", "new/other.yaml").exit_code == 0
    assert read_config("new/other.yaml").data.set == "digits"


REFUSED = {
    "no folder": ("nowhere", r"nowhere: no such folder"),
    "no classes": ("empty", r"needs at least 2 classes"),
    "a damaged image": ("damaged", r"1 of 9 images cannot be used"),
}


@pytest.mark.parametrize(("name", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("untried")
def test_images_that_cannot_be_trained_on_are_refused_and_nothing_is_written(name, message, inside):
    (inside / "empty").mkdir()
    images(inside / "damaged", {"a": 4, "b": 4})
    (inside / "damaged" / "a" / "x.png").write_bytes(b"no image")
    refused = call("init", "--data", name)
    assert refused.exit_code == 2
    assert re.search(message, refused.stderr), refused.stderr
    assert not (inside / "run.yaml").exists()


SMALLER = {
    r"width: [\d.]+": "width: 1.0",
    r"family: mobilenet_v2": "last_width: 8\n  stem: {width: [2, 4], stride: 2}\n"
    "  stages: [{intermediate: [4, 8], output: [4, 6], stride: 1}]\n  family: mobilenet_v2",
    r"lower: [\d.]+": "lower: 0.0025",
    r"upper: [\d.]+": "upper: 0.0049",
    r"steps: \d+": "steps: 6",
    r"initial: \d+": "initial: 4",
    r"rounds: \d+": "rounds: 0",
}
"""What a user in a hurry changes."""


def test_from_a_folder_of_images_to_a_network_in_8_bits_with_three_commands(inside):
    images(inside / "photos", {"cat": 20, "dog": 20, "owl": 20})
    begun = call("init", "--data", "photos")
    assert re.search(
        r"On this machine it takes about [\d.]+ (seconds|minutes|hours)\.$", begun.stdout
    )
    text = (inside / "run.yaml").read_text()
    for old, new in SMALLER.items():
        text, changed = re.subn(f"^  {old}", f"  {new}", text, flags=re.MULTILINE)
        assert changed == 1
    (inside / "run.yaml").write_text(text)
    for command in (("train", "run.yaml"), ("search", "runs/photos")):
        done = call(*command)
        assert done.exit_code == 0, done.stderr
    assert rows(call("best", "runs/photos").stdout)[-1] == (
        "files",
        "none yet; boundnas export runs/photos writes them",
    )
    assert call("run", "run.yaml").exit_code == 0
    found = rows(call("best", "runs/photos", "--macs", "4.9k").stdout)
    folder = inside / dict(found)["folder"]
    size = (folder / "model.int8.onnx").stat().st_size
    assert ("file", f"model.int8.onnx, {size:,} bytes") in found
    card = (folder / "card.md").read_text()
    assert (
        f"| `model.int8.onnx` | {size:,} | {dict(found)['validation in 8 bits']} | "
        f"{dict(found)['test in 8 bits']} |\n"
    ) in card


def test_a_length_of_time_is_told_in_its_unit():
    lengths = (0.2, 89, 90, 5399, 5400, 10**5)
    found = ["2 seconds", "89 seconds", "2 minutes", "90 minutes", "1.5 hours", "28 hours"]
    assert list(map(about, lengths)) == found


def test_the_time_is_that_of_a_step_and_of_a_candidate_times_their_number(monkeypatch):
    clock = [0.0]

    def trained(*_, settings, **__):
        clock[0] += 10 + 2 * settings.steps  # what comes before the first step does not count

    class Measured:
        def __init__(self, *_):
            clock[0] += 5

        @contextmanager
        def measuring(self):
            def measure(drawn):
                for architecture in drawn:
                    clock[0] += 3
                    yield architecture

            yield measure

    made = propose(None)
    monkeypatch.setattr(proposal, "fit", trained)
    monkeypatch.setattr(proposal, "Evaluator", Measured)
    monkeypatch.setattr(proposal.time, "monotonic", lambda: clock[0])
    config = made.job.config
    candidates = 64 + 6 * (16 + 16)
    assert config.search.initial == 64
    assert made.seconds() == 2 * config.train.steps + 3 * candidates
