"""Every setting matters: moved from its default it changes the numbers of a small run."""

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from tests.reliability.child import replaced
from tests.small import default_type, digest

from boundnas.app import pipeline
from boundnas.config import RunConfig
from boundnas.fit.run import bounds_record
from boundnas.randomness import stream
from boundnas.store.lines import read_jsonl

BASE = {
    "name": "small",
    "device": "cpu",
    "threads": 1,
    "data": {"set": "digits"},
    "space": {
        "last_width": 8,
        "stem": {"width": [2, 4], "stride": 1},
        "stages": [
            {"intermediate": [4, 8], "output": [4, 6], "depth": [2, 3], "stride": 1},
            {"intermediate": [8], "output": [8], "stride": 2},
        ],
    },
    "cost": {"lower": 0.012, "upper": 0.04},
    "train": {"steps": 6, "batch_size": 16, "clip_value": 1e-2},
    "search": {
        "initial": 4, "rounds": 2, "crossovers": 2, "mutations": 2, "calibration_images": 64,
        "batch_size": 32,
    },
    "export": {"formats": []},
}  # fmt: skip
"""A run of about a third of a second, in which nearly every setting has something to decide."""

STAGE = BASE["space"]["stages"][0]


def stages(**other):
    """The stages of the small run, the first of them with other values."""
    return [{**STAGE, **other}, BASE["space"]["stages"][1]]


NARROW = [{"dimensions": "stage1.layer*", "largest": 5}]
"""Boundaries that start, and so here end, without the largest widths."""

FILES = {"data.set": "folder", "data.folder": "images", "data.image_size": 8, "cost.upper": 0.06}
OF_FILES = {
    "image_size": 9,
    "channels": 1,
    "fit": "pad",
    "background": "black",
    "smallest_crop": 0.3,
}  # fmt: skip

MOVED = {
    "seed": 1,
    "data.validation_fraction": 0.3,
    **{f"data.{key}": (value, FILES) for key, value in OF_FILES.items()},
    "data.mirror": True,
    "data.shift": 2,
    "task": {"use": "classification", "label_smoothing": 0.3},
    "trained": True,
    "optimizer": {"use": "torch.optim:AdamW", "lr": 0.01},
    "schedule": "torch.optim.lr_scheduler:StepLR",
    "space.family": (
        "width_only",
        {"space.stages": None, "space.width": 0.1, "train.steps": 2, "search.rounds": 0},
    ),
    "space.width": 1.5,
    "space.last_width": 9,
    "space.dropout": 0.9,
    "space.drop_connect": 0.9,
    "space.stem": None,
    "space.stem.width": [2, 5],
    "space.stem.kernel": [5],
    "space.stem.stride": (2, {"cost.lower": 4e-3}),
    "space.stages": stages()[:1],
    "space.stages.intermediate": stages(intermediate=[4, 9]),
    "space.stages.output": stages(output=[4, 7]),
    "space.stages.depth": stages(depth=[1, 3]),
    "space.stages.kernel": stages(kernel=[3, 5]),
    "space.stages.se": stages(se=[True]),
    "space.stages.activation": stages(activation=["swish"]),
    "space.stages.stride": stages(stride=2),
    "cost.metric": ("parameters", {"cost.lower": 7e-4, "cost.upper": 0.02}),
    "cost.lower": 0.03,
    "cost.upper": 0.035,
    "train.steps": 7,
    "train.epochs": (0.1, {"train.steps": 6}),
    "train.batch_size": 18,
    "train.precision": "bf16",
    "train.accumulate": 2,
    "train.learning_rate": 0.05,
    "train.warmup_start": (1e-2, {"train.warmup_fraction": 0.5}),
    "train.warmup_fraction": 0.5,
    "train.momentum": 0.5,
    "train.weight_decay": 0.01,
    "train.mixup": 0.2,
    "train.cutmix": 1.0,
    "train.ema": 0.9,
    "train.clip_value": 2e-2,
    "train.learn": "max",
    "train.bounds": ("from_cost", {"cost.upper": 0.018}),
    "train.grad_from_random": True,
    "train.random_networks": 1,
    "train.random_choice": "best_up",
    "train.candidates": (5, {"train.random_choice": "best_up"}),
    "train.distillation": "adaptive_alpha",
    "train.conflict": "project",
    "train.penalty_weight": (1.0, {"train.clip_value": None}),
    "train.tau": (0.1, {"train.start_std": 1e-3}),
    "train.eq6": ("printed", {"train.tau": 0.1, "train.start_temperature": 10.0}),
    "train.policy_learning_rate": 0.01,
    "train.estimator": "score_function",
    "train.policy_every": 2,
    "train.start_std": 0.2,
    "train.start_temperature": 0.2,
    "train.prior": NARROW,
    "train.gumbel_temperature": 2.0,
    "train.ghost_fraction": 1.0,
    "search.method": "nsga2",
    "search.initial": 5,
    "search.rounds": 3,
    "search.crossovers": 3,
    "search.mutations": 3,
    "search.mutation_probability": 0.9,
    "search.bounds": ("whole", {"train.prior": NARROW, "train.policy_learning_rate": 1e-6}),
    "search.calibration_images": 32,
    "search.batch_size": 16,
    "search.screen": 0.2,
}
"""Another value of every setting, where need be with what it takes to have an effect beside it."""

WITHOUT_EFFECT = {
    "name": "names the folder",
    "device": "the processor is the only device here; tests/test_cli.py",
    "threads": "decides the last bits only; tests/reliability/test_same_bytes.py",
    "observers": "only look on; tests/test_own_code.py",
    "data.set": "other images; tests/test_data.py",
    "data.folder": "where the files lie; tests/test_data.py",
    "data.links": "whether there is a run; tests/test_wild_folders.py",
    "data.damaged": "whether there is a run; tests/test_wild_folders.py",
    "train.prior.dimensions": "part of train.prior; tests/test_train.py",
    "train.prior.smallest": "part of train.prior; tests/test_train.py",
    "train.prior.largest": "part of train.prior; tests/test_train.py",
    "cost.table": "goes with a model; tests/test_latency_runs.py",
    "train.gradient_checkpointing": "decides memory and time; tests/test_recomputed.py",
    "search.workers": "decides time; tests/test_workers.py",
    "train.checkpoint_every": "decides what a kill costs; tests/reliability/test_kills.py",
    "export.formats": "what is written of each network; tests/test_export.py",
    "export.latency": "what is measured of each network; tests/test_front_latency.py",
}
"""Settings that leave a run's numbers as they are, and where what they do is tested."""


def settings_of(model, prefix=""):
    """Dotted names of all settings, those of sections and of lists of sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for section in sections(field.annotation):
            yield from settings_of(section, f"{prefix}{name}.")


def sections(annotation):
    """Settings classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for part in getattr(annotation, "__args__", ()) for s in sections(part)]


def test_every_setting_is_in_one_of_the_two_tables():
    groups = {"data", "space", "cost", "train", "search", "export"}
    assert sorted([*MOVED, *WITHOUT_EFFECT]) == sorted(set(settings_of(RunConfig)) - groups)


def configured(changes):
    """The small run's configuration with some settings changed, as sorted pairs."""
    tree = {k: dict(v) if isinstance(v, dict) else v for k, v in BASE.items()}
    tree["space"]["stem"] = dict(tree["space"]["stem"])
    for key, value in changes.items():
        *path, name = key.split(".")
        if path[-1:] == ["stages"]:
            path, name = path[:-1], "stages"
        section = tree
        for part in path:
            section = section[part]
        section[name] = value
    return RunConfig.model_validate(tree)


@cache
def trained(config):
    """All numbers of a training: its steps, weights and boundaries."""
    with running(config) as (job, held):
        run = job.train(held)
        return digest(run.model), run.metrics, bounds_record(run, {}, "", {})


@cache
def searched(config):
    """All that the search after it measured."""
    with running(config) as (job, held):
        front = job.search(job.train(held))
        measured = [row["score"] for row in read_jsonl(held.evaluations)[1:]]
    return measured, [(n.arch.values, n.validation, n.test) for n in front.networks]


@contextmanager
def running(config):
    """A run of a configuration in a folder of its own."""
    with (
        TemporaryDirectory() as folder,
        pipeline.working(config, Path(folder) / "run") as working,
    ):
        yield working


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images that are no squares and of which a part is transparent."""
    place = tmp_path_factory.mktemp("files") / "images"
    for number in range(40):
        pixels = torch.randint(256, (10, 14, 4), generator=stream(number, "pixels"))
        path = place / f"{'ab'[number % 2]}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return place


@pytest.mark.parametrize("key", MOVED)
def test_a_setting_moved_from_its_default_changes_the_numbers_of_a_run(key, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    value, beside = MOVED[key] if isinstance(MOVED[key], tuple) else (MOVED[key], {})
    moved = {**beside, key: value}
    if key == "train.epochs":
        moved["train.steps"] = None  # one of the two
    one, other = configured(moved), configured(beside)
    assert trained(one) != trained(other) or searched(one) != searched(other)


def test_the_same_settings_give_the_same_numbers():
    config = configured({})
    first = trained(config), searched(config)
    trained.cache_clear()
    searched.cache_clear()
    assert (trained(config), searched(config)) == first


DRAWN = {"data.smallest_crop": torch.float64, "search.screen": torch.bfloat16}
"""Settings that ask for further draws, each under another default type."""


@pytest.mark.parametrize(("key", "kind"), DRAWN.items(), ids=DRAWN)
def test_the_default_type_of_another_package_changes_no_number(key, kind, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    value, beside = MOVED[key] if isinstance(MOVED[key], tuple) else (MOVED[key], {})
    config = configured({**beside, key: value})
    expected = trained(config), searched(config)
    trained.cache_clear()
    searched.cache_clear()
    with default_type(kind), replaced(pipeline, "made", of_float32):
        assert (trained(config), searched(config)) == expected


def of_float32(made):
    """Models of single precision, as before the other package was imported."""
    return default_type(torch.float32)(made)


def rows(model, prefix=""):
    """A row of the documentation for every setting: name, default, what it is."""
    for name, field in model.model_fields.items():
        inner = sections(field.annotation)
        if not prefix and inner:
            yield from rows(inner[0], f"{name}.")
            continue
        default = "required" if field.is_required() else f"`{write(field.default)}`"
        yield f"| `{prefix}{name}` | {default} | {field.description} |"
        several = "[]" if "tuple" in str(field.annotation) else ""
        for section in inner:
            yield from rows(section, f"{prefix}{name}{several}.")


def write(value):
    """A default as YAML has it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value).replace('"', "")


def test_the_docs_list_every_setting_with_its_default():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    found = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert found == list(rows(RunConfig))
