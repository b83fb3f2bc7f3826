"""Row 16: ranks that differ in anything refuse before a step; ranks that never meet say so."""

import json
import os
import re
import socket
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from tests.reliability.child import fork, replaced
from tests.reliability.ranks import finish, together
from tests.reliability.tiny import configure, run, text
from tests.small import few_digits
from torch import nn

from boundnas import TrainSettings, elastic, fit, search
from boundnas.app import cli, pipeline
from boundnas.config import read_config
from boundnas.cost import MACs, Parameters
from boundnas.data import InMemory
from boundnas.elastic import native
from boundnas.engine import ranks
from boundnas.errors import RankError
from boundnas.fit import identity
from boundnas.method.sandwich import Sandwich
from boundnas.settings import SearchSettings
from boundnas.store.folder import RunFolder
from boundnas.supernet.supernet import Supernet

pytestmark = pytest.mark.usefixtures("whole")  # whose run has imported all that children need

REFUSED = (
    "RankError: rank {rank}, .*: the ranks do not do the same: "
    "{name} is .* in rank 0 and .* in rank 1"
)


class Small(Supernet):
    def __init__(self, widths=(4, 6), kernel=3, dropout=0.0, classes=10, kind="width", seed=0):
        super().__init__((1, 8, 8))
        width = self.dimension("width", widths, kind)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = elastic.Conv2d(1, width, kernel)
            self.dropout = nn.Dropout(dropout)
            self.head = elastic.Linear(width, classes)

    def forward(self, x, arch):
        return self.head(self.dropout(self.conv(x, arch).relu()).mean((2, 3)), arch)


class OtherForward(Small):
    def forward(self, x, arch):
        return self.head(self.conv(x, arch).relu().mean((2, 3)), arch)


def changed(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def held(source):
    """All of a source in memory."""
    return InMemory(*source.take(torch.arange(len(source))))


@cache
def digits():
    data = few_digits()
    return replace(data, **{s: held(getattr(data, s)) for s in ("train", "validation", "test")})


def with_images(split):
    source = getattr(digits(), split)
    images = changed(source.images, (-1, 0, 7, 7), 201)
    return {"data": replace(digits(), **{split: InMemory(images, source.labels)})}


def with_labels(split):
    source = getattr(digits(), split)
    labels = changed(source.labels, -1, (int(source.labels[-1]) + 1) % 10)
    return {"data": replace(digits(), **{split: InMemory(source.images, labels)})}


def with_weight(model, name="head.weight"):
    dict(model.named_parameters())[name].data.view(-1)[0] += 1e-7
    return {"model": model}


def frozen(model):
    model.conv.requires_grad_(False)
    return {"model": model}


def evaluating(model):
    model.dropout.eval()
    return {"model": model}


def of_machine(name, value):
    """Another surrounding, as if this rank ran in it."""
    surroundings = identity.environment

    def changed_environment():
        return {**surroundings(), name: value}

    return replaced(identity, "environment", lambda old: changed_environment)


SETTINGS = {"steps": 1, "batch_size": 16, "checkpoint_every": 2}


def with_settings(**changes):
    return {"settings": TrainSettings(**{**SETTINGS, **changes})}


FITS = {
    "learning rate": ("train.learning_rate", lambda p: with_settings(learning_rate=0.2)),
    "momentum": ("train.momentum", lambda p: with_settings(momentum=0.5)),
    "weight decay": ("train.weight_decay", lambda p: with_settings(weight_decay=1e-3)),
    "number of steps": ("train.steps", lambda p: with_settings(steps=2)),
    "batch size": ("train.batch_size", lambda p: with_settings(batch_size=8)),
    "tau": ("train.tau", lambda p: with_settings(tau=0.4)),
    "penalty": ("train.penalty_weight", lambda p: with_settings(penalty_weight=4)),
    "random networks": ("train.random_networks", lambda p: with_settings(random_networks=1)),
    "start": ("train.start_std", lambda p: with_settings(start_std=0.1)),
    "where boundaries begin": ("train.bounds", lambda p: with_settings(bounds="from_cost")),
    "learned boundaries": ("train.learn", lambda p: with_settings(learn="max")),
    "distillation": ("train.distillation", lambda p: with_settings(distillation="adaptive_alpha")),
    "estimator": ("train.estimator", lambda p: with_settings(estimator="score_function")),
    "prior": (
        "train.prior",
        lambda p: with_settings(prior=[{"dimensions": "width", "largest": 4}]),
    ),
    "clipping": ("train.clip_value", lambda p: with_settings(clip_value=None)),
    "checkpoints": ("train.checkpoint_every", lambda p: with_settings(checkpoint_every=1)),
    "seed": ("seed", lambda p: {"seed": 1}),
    "cost range": ("cost_range", lambda p: {"cost_range": (2e3, 5e3)}),
    "cost": ("cost", lambda p: {"cost": Parameters(p["model"]), "cost_range": (50, 100)}),
    "widths": ("dimension width", lambda p: {"model": Small((4, 8))}),
    "number of widths": ("dimension width", lambda p: {"model": Small((4, 5, 6))}),
    "kernel": ("module conv", lambda p: {"model": Small(kernel=5)}),
    "kind of dimension": ("dimension width", lambda p: {"model": Small(kind="breadth")}),
    "dropout": ("module dropout", lambda p: {"model": Small(dropout=0.1)}),
    "forward": ("module itself", lambda p: {"model": OtherForward()}),
    "seed of the weights": ("values of conv.weight", lambda p: {"model": Small(seed=1)}),
    "one weight": ("values of head.weight", lambda p: with_weight(p["model"])),
    "frozen weights": ("shape of conv.weight", lambda p: frozen(p["model"])),
    "mode of a module": ("module dropout", lambda p: evaluating(p["model"])),
    "weights that hold nothing": (
        "device",
        lambda p: {"model": Small().to("meta")},
    ),
    "type of the weights": ("shape of conv.weight", lambda p: {"model": p["model"].double()}),
    "images of train": ("images of data.train", lambda p: with_images("train")),
    "images of validation": ("images of data.validation", lambda p: with_images("validation")),
    "images of test": ("images of data.test", lambda p: with_images("test")),
    "labels of train": ("labels of data.train", lambda p: with_labels("train")),
    "labels of validation": ("labels of data.validation", lambda p: with_labels("validation")),
    "labels of test": ("labels of data.test", lambda p: with_labels("test")),
    "mean": ("data.mean", lambda p: {"data": replace(digits(), mean=(0.25,))}),
    "padding": ("data.padding", lambda p: {"data": replace(digits(), padding=2)}),
    "mirroring": ("data.flip", lambda p: {"data": replace(digits(), flip=True)}),
    "class names": (
        "data.classes",
        lambda p: {"data": replace(digits(), classes=tuple("abcdefghij"))},
    ),
    "folder": ("folder", lambda p: {"folder": RunFolder.create(p["path"] / "other", "name: x\n")}),
    "no folder": ("folder", lambda p: {"folder": None}),
    "version of torch": ("torch", lambda p: of_machine("torch", "2.0.0")),
    "version of boundnas": ("boundnas", lambda p: of_machine("boundnas", "0.0.1")),
    "version of Python": ("python", lambda p: of_machine("python", "3.9.1")),
    "threads": ("threads", lambda p: of_machine("threads", 3)),
    "CPU capability": ("cpu_capability", lambda p: of_machine("cpu_capability", "NO AVX")),
    "kernels": (
        "kernels",
        lambda p: replaced(native, "available", lambda old: lambda: not old()),
    ),
}
"""What is another in rank 1, by what the message must name: changed arguments or surroundings."""

CONFIGS = {
    "configured seed": ("seed", ("threads: 1", "threads: 1\nseed: 1")),
    "configured threads": ("threads", ("threads: 1", "threads: 2")),
    "configured validation": (
        "data.validation_fraction",
        ("set: digits", "set: digits\n  validation_fraction: 0.25"),
    ),
    "configured space": ("space.last_width", ("last_width: 8", "last_width: 16")),
    "configured stage": ("space.stages", ("kernel: [3, 5]", "kernel: [3]")),
    "configured range": ("cost.lower", ("lower: 0.012", "lower: 0.013")),
    "configured search": ("search.initial", ("initial: 3", "initial: 4")),
    "configured export": ("export.formats", ("formats: []", "formats: [onnx]")),
    "configured name": ("name", ("name: tiny", "name: other")),
}
"""Likewise, by what in the text of rank 1's configuration is replaced."""


def never(old):
    def step(*_, **__):
        raise AssertionError("a step was taken")

    return step


def message(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def parts(path):
    model = Small()
    return {
        "model": model,
        "data": digits(),
        "cost_range": (1e3, 5e3),
        "cost": MACs(model),
        "folder": path and RunFolder.open(path / "run"),
        "seed": 0,
        **with_settings(),
    }


def fit_changed(change, path):
    base = parts(path)
    change = change({**base, "path": path}) if ranks.rank() else {}
    if not isinstance(change, dict):  # surroundings
        with change:
            return message(lambda: fit(**base))
    base |= change
    if "cost" not in change:
        base["cost"] = MACs(base["model"])
    return message(lambda: fit(**base))


def working_changed(change, path):
    written = text().replace(*change) if ranks.rank() else text()
    config = path / f"{ranks.rank()}.yaml"
    config.write_text(written)

    def work():
        with pipeline.working(read_config(config), path / "runs" / "tiny"):
            raise AssertionError("not refused")

    return message(work)


def test_ranks_that_differ_in_one_thing_refuse_before_a_step(tmp_path, figure):
    digits()
    RunFolder.create(tmp_path / "run", "name: run\n")

    def work():
        found = {}
        with ranks.connected(60), replaced(Sandwich, "step", never):
            for name, (_, change) in FITS.items():
                found[name] = fit_changed(change, tmp_path)
            for name, (_, change) in CONFIGS.items():
                found[name] = working_changed(change, tmp_path)
            (tmp_path / f"found-{ranks.rank()}.json").write_text(json.dumps(found))

    codes, texts = finish(together(work, tmp_path))
    assert codes == [0, 0], texts
    for rank in range(2):
        found = json.loads((tmp_path / f"found-{rank}.json").read_text())
        pattern = {
            case: REFUSED.format(rank=rank, name=re.escape(name))
            for case, (name, _) in {**FITS, **CONFIGS}.items()
        }
        wrong = {c: text for c, text in found.items() if not re.match(pattern[c], text)}
        assert wrong == {}
    assert not (tmp_path / "runs").exists(), "nothing is created where ranks refuse"
    figure(f"{len(FITS) + len(CONFIGS)} pairs of ranks, each differing in one thing, all refused")


def test_ranks_whose_folders_and_machines_have_other_names_go_on(tmp_path):
    digits()
    RunFolder.create(tmp_path / "run", "name: run\n")
    (tmp_path / "again").symlink_to(tmp_path / "run")

    def work():
        with ranks.connected(60):
            base = parts(tmp_path)
            if ranks.rank():
                base["folder"] = RunFolder.open(tmp_path / "again")
                base["data"] = replace(digits())
            with of_machine("cpu" if ranks.rank() else "platform", "another"):
                fit(**base)

    codes, texts = finish(together(work, tmp_path))
    assert codes == [0, 0], texts


def test_ranks_that_search_something_else_refuse(tmp_path):
    digits()
    few = SearchSettings(initial=3, rounds=1, crossovers=1, mutations=1, calibration_images=64)
    cases = {
        "search.initial": lambda run: search(run, few.model_copy(update={"initial": 4})),
        "values of head.weight": lambda run: (with_weight(run.model), search(run, few)),
        "min_policy": lambda run: (
            run.boundaries.min.logits.data.add_(1),
            search(run, few),
        ),
        "at work": lambda run: fit(**{**parts(tmp_path), "folder": None}),
    }

    def work():
        with ranks.connected(60):
            found = {}
            for name, other in cases.items():
                run = fit(**{**parts(tmp_path), "folder": None})
                do = other if ranks.rank() else lambda run: search(run, few)
                found[name] = message(lambda do=do, run=run: do(run))
            (tmp_path / f"found-{ranks.rank()}.json").write_text(json.dumps(found))

    RunFolder.create(tmp_path / "run", "name: run\n")
    codes, texts = finish(together(work, tmp_path))
    assert codes == [0, 0], texts
    for rank in range(2):
        for name, told in json.loads((tmp_path / f"found-{rank}.json").read_text()).items():
            assert re.match(REFUSED.format(rank=rank, name=re.escape(name)), told), told


def test_of_three_ranks_the_message_names_all_and_counts_further_differences(tmp_path):
    def work():
        with ranks.connected(60):
            number = ranks.rank()
            mine = {"colour": "red" if number < 2 else "blue", "size": str(number), "same": "yes"}
            if number == 1:
                mine["more"] = "yes"
            (tmp_path / f"{number}").write_text(message(lambda: ranks.agree(lambda: mine, "now")))

    codes, texts = finish(together(work, tmp_path, 3))
    assert codes == [0, 0, 0], texts
    for number in range(3):
        assert (tmp_path / f"{number}").read_text() == (
            f"RankError: rank {number}, now: the ranks do not do the same: colour is red in rank "
            "0, 1 and blue in rank 2; 2 more: size, more. Start all of them with the same "
            "configuration, data, model, versions and threads"
        )


MEET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

NONSENSE = {
    "a word": ({"WORLD_SIZE": "abc"}, "WORLD_SIZE must be a whole number from 1 to .*'abc'"),
    "empty": ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number from 1 to .*''"),
    "none": ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number from 1 to .*'0'"),
    "negative": ({"WORLD_SIZE": "-1"}, "WORLD_SIZE must be a whole number from 1 to .*'-1'"),
    "a fraction": ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE must be a whole number from 1 to .*'2.0'"),
    "other digits": ({"WORLD_SIZE": "\uff12"}, "WORLD_SIZE must be a whole number from 1 to "),
    "endless": ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE must be a whole number from 1 to "),
    "a size alone": ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
    "a rank alone": ({"RANK": "1"}, "RANK must be 0, since WORLD_SIZE is not set, found '1'"),
    "a rank beyond": (
        {"RANK": "2", "WORLD_SIZE": "2", **MEET},
        "RANK must be a whole number from 0 to 1, since WORLD_SIZE is 2, found '2'",
    ),
    "a rank below": ({"RANK": "-1", "WORLD_SIZE": "2", **MEET}, "RANK must be a whole number"),
    "a rank in words": ({"RANK": "one", "WORLD_SIZE": "2", **MEET}, "RANK must be .* 'one'"),
    "a local rank in words": ({"LOCAL_RANK": "x"}, "LOCAL_RANK must be 0, .* found 'x'"),
    "a local rank beyond": (
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "7", **MEET},
        "LOCAL_RANK must be a whole number from 0 to 1, since WORLD_SIZE is 2, found '7'",
    ),
    "no address": ({"RANK": "1", "WORLD_SIZE": "2"}, "but MASTER_ADDR is not set"),
    "no port": (
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        "but MASTER_PORT is not set",
    ),
    "no such port": (
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "65536"},
        "MASTER_PORT must be a whole number from 1 to 65535, found '65536'",
    ),
}


@pytest.mark.parametrize(("variables", "told"), NONSENSE.values(), ids=NONSENSE)
def test_variables_that_make_no_sense_are_refused_at_once(variables, told, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.rank() == 0, "for messages"
    with pytest.raises(RankError, match=told), ranks.connected(3600):
        pass
    with pytest.raises(RankError, match=told):
        ranks.agree(dict, "now")


def test_a_command_answers_nonsense_with_one_line(tmp_path):
    configure(tmp_path)
    child = fork(lambda: (os.environ.update(WORLD_SIZE="abc"), run()), tmp_path)
    assert child.wait(60) == 1
    assert re.fullmatch("RankError: WORLD_SIZE must be .*\n", child.text)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_python_is_told_that_it_has_not_joined_the_others(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", **MEET}.items():
        monkeypatch.setenv(name, value)
    base = {**parts(None), "folder": None}
    with pytest.raises(RankError, match="WORLD_SIZE is 2, but this process has not joined"):
        fit(**base)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_ranks_that_never_meet_say_so_within_the_timeout(tmp_path, figure):
    silent = socket.socket()  # accepts and says nothing
    silent.bind(("127.0.0.1", 0))
    silent.listen(8)
    mute = silent.getsockname()[1]
    two = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    cases = {
        "rank 1 did not come in time": {**two, "RANK": "0", "MASTER_PORT": free_port()},
        "nobody answers there in time": {**two, "RANK": "1", "MASTER_PORT": free_port()},
        "rank 0 did not answer in time": {**two, "RANK": "1", "MASTER_PORT": mute},
        "address already in use": {**two, "RANK": "0", "MASTER_PORT": mute},
        "rank 1 of 2, at the start, at nowhere.invalid port 29500: nobody answers": {
            **two, "RANK": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": 29500,
        },
        "rank 0 of 2, at the start, at nowhere.invalid port 29500: nobody answers": {
            **two, "RANK": "0", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": 29500,
        },
    }  # fmt: skip
    port = free_port()
    sizes = {
        "WORLD_SIZE is 2 here and 3 in rank 1": {**two, "RANK": "0", "MASTER_PORT": port},
        "WORLD_SIZE is 3 here and 2 in rank 0": {
            "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "RANK": "1", "MASTER_PORT": port,
        },
    }  # fmt: skip
    three = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    twice = {
        "rank 2 did not come in time": {**three, "RANK": "0"},
        "rank 1 of 3, .*(has this rank too|rank 2 did not come|cannot meet)": {
            **three,
            "RANK": "1",
        },
        "rank 1 of 3, .*(rank 2 did not come|has this rank too|cannot meet)": {
            **three,
            "RANK": "1",
        },
    }

    def meeting(variables):
        os.environ.update({name: str(value) for name, value in variables.items()})
        cli.app(["run", "run.yaml", "--timeout", "2"])

    configure(tmp_path)
    every = {**cases, **sizes, **twice}
    with silent:
        children = [fork(partial(meeting, variables), tmp_path) for variables in every.values()]
        codes, texts = finish(children, 2 + 30)  # of which the imports of eight take most
    assert codes == [1] * len(children), texts
    for told, text_ in zip(every, texts, strict=True):
        assert re.search(told, text_), text_
        # Where rank 0 gives up first, torch itself complains on behalf of the others.
        assert "Traceback" not in text_
        assert "cannot meet" in text_ or len(text_.splitlines()) == 1, text_
    assert sum("has this rank too" in text_ for text_ in texts) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    figure(f"{len(children)} ranks that never meet, each one error within the timeout")
