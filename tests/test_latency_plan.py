"""Another device: what it has to time, timed without BoundNAS there, and made a table here."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from tests.reliability.tiny import text
from tests.small import files, mobilenet
from tests.spaces import seeded
from tests.test_cli import call
from tests.times import nanoseconds, table_of
from tests.times import plan as shared
from torch import fx, nn

from boundnas import Supernet, elastic
from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.cost import Latency
from boundnas.cost.latency import predictions
from boundnas.errors import CostError
from boundnas.latency import elsewhere, fit, runner
from boundnas.latency.elsewhere import collect, constant, program, write_plan
from boundnas.latency.measuring import BLOCK_ROUNDS, NETWORK_ROUNDS
from boundnas.latency.timing import Times
from boundnas.randomness import stream
from boundnas.store.files import write_json
from boundnas.supernet.signature import digest

ALONE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("boundnas", "torch", "pydantic"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
BEFORE
sys.argv[0] = "measure.py"
runpy.run_path("measure.py", run_name="__main__")
"""


def alone(folder, *arguments, before=""):
    """Run the program of a plan in a process that can import neither boundnas nor torch."""
    command = [sys.executable, "-I", "-c", ALONE.replace("BEFORE", before), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def few():
    """Few whole networks and the coarsest grid alone, so that it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "FITTED", 4)
        patch.setattr(fit, "CHECKED", 6)
        patch.setattr(elsewhere, "MOST_BLOCKS", 0)
        yield


@pytest.fixture(scope="module")
def planned(few, tmp_path_factory):
    """A folder with a configuration and a plan of it, and what the command said."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "macs.yaml").write_text(text())
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for rounds in ("BLOCK_ROUNDS", "NETWORK_ROUNDS"):
            patch.setattr(elsewhere, rounds, 2)  # a noisy machine takes up to 15 times as many
        done = call("latency", "macs.yaml", "--plan", "plan")
    assert done.exit_code == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def model(planned):
    return pipeline.Job.prepare(read_config(planned[0] / "macs.yaml")).model


@pytest.fixture
def plan(planned, tmp_path):
    """A copy of the plan."""
    return shutil.copytree(planned[0] / "plan", tmp_path / "copy")


def read(path):
    return json.loads(path.read_text())


def made_up(plan, model):
    """Times that could have been measured by a plan, of which all is known: networks take twice
    as long as their blocks together, and 5 microseconds.
    """
    known, times = read(plan / "plan.json"), {}
    by_sum = {digest(s): nanoseconds(s) for s in shared(model).signatures(0)}
    for block in known["blocks"]:
        time = by_sum[block["signature"]]
        times[block["one"]] = 7000 + time
        times[block["many"]] = 7000 + block["number"] * time
    predict = predictions(model.space, table_of(model, 0))
    for n in known["networks"]:
        times[n["file"]] = 5000 + 2 * predict(model.space.architecture(n["architecture"]))
    return {
        "version": 1,
        "plan": known["plan"],
        "runtime": "onnxruntime",
        "runtime_version": "1.0",
        "threads": 3,
        "machine": {"cpu": "a phone"},
        "times": {name: [time, time - 1, time + 1] for name, time in times.items()},
        "references": [[1000, 990, 1010], [1000, 995, 1025]],
    }


@pytest.fixture
def known(plan, model):
    """What the made up times are."""
    found = made_up(plan, model)
    write_json(plan / "times.json", found)
    return found


def test_what_comes_back_is_the_table_that_its_times_say(plan, known, model):
    table = collect(model, plan)
    assert (table.offset, table.scale) == (5000, 2.0)
    assert (table.runtime, table.threads, table.batch) == ("onnxruntime", 3, 1)
    assert table.machine == {"cpu": "a phone"}
    assert table.noise == 0.025
    assert (table.validation.spearman, table.validation.error) == (1, 0)
    assert len(table.validation.networks) == 6
    assert all(n.quartiles == (n.measured - 1, n.measured + 1) for n in table.validation.networks)
    cost, blocks = Latency(model, table), predictions(model.space, table_of(model, 0))
    for arch in (model.space.smallest, model.space.largest, model.space.sample(stream(0, "p"))):
        assert cost(arch) == 5000 + 2 * blocks(arch)


def test_times_of_a_finer_grid_that_are_not_all_there_are_left_out(tmp_path, few, monkeypatch):
    monkeypatch.setattr(elsewhere, "MOST_BLOCKS", 100)
    model = seeded(Small)
    plan = tmp_path / "plan"
    record = write_plan(model, plan)
    assert {group.level for group in record.groups} == {0, 1}
    assert [g.level for g in record.groups] == sorted(g.level for g in record.groups)
    coarse = [name for group in record.groups if group.level == 0 for name in group.files]
    times = {name: [90_000 if "many" in name else 9000] * 3 for name in coarse}
    write_times(plan, record.plan, times)
    table = collect(model, plan)
    assert {axis.points for block in table.blocks for axis in block.axes} <= {1, 2}
    assert table.validation is None  # with two of its three networks fitted to
    again = write_plan(model, tmp_path / "again")
    assert again == record
    assert files(tmp_path / "again").items() <= files(plan).items()


def write_times(plan, name, times, runtime_version="1", threads=1):
    """What a quiet device with nothing to say of itself would bring back."""
    write_json(
        plan / "times.json",
        {"version": 1, "plan": name, "runtime": "onnxruntime", "runtime_version": runtime_version,
         "threads": threads, "machine": {}, "times": times, "references": [[9, 9, 9]]},
    )  # fmt: skip


class Small(Supernet):
    """One width of three options."""

    def __init__(self):
        super().__init__((3, 4, 4))
        width = self.dimension("width", (2, 3, 4))
        self.conv, self.head = elastic.Conv2d(3, width, 3), elastic.Linear(width, 2)

    def forward(self, x, arch):
        return self.head(self.conv(x, arch).relu().mean((2, 3)), arch)


KILLED = """
import os
replace = os.replace
def stopped(*paths):
    replace(*paths)
    os._exit(9)
os.replace = stopped
"""


@pytest.fixture(scope="module")
def device(planned, tmp_path_factory):
    """A plan that was timed by two threads elsewhere, after a first time that was killed."""
    folder = shutil.copytree(planned[0] / "plan", tmp_path_factory.mktemp("device") / "plan")
    assert alone(folder, "--threads", "2", before=KILLED).returncode == 9
    first = read(folder / "times.json")["times"]
    done = alone(folder, "--threads", "2")
    assert done.returncode == 0, done.stderr
    return folder, first, done.stdout


def test_the_program_runs_without_boundnas_and_torch_and_goes_on_after_a_kill(device):
    folder, first, said = device
    record, found = read(folder / "plan.json"), read(folder / "times.json")
    assert first.keys() == set(record["groups"][0]["files"])
    assert found["times"].items() >= first.items()
    assert found["times"].keys() == {n for group in record["groups"] for n in group["files"]}
    assert len(found["references"]) == len(record["groups"])
    assert (found["threads"], found["plan"]) == (2, record["plan"])
    assert all(0 < low <= middle <= high for middle, low, high in found["times"].values())
    assert {type(time) for times in found["times"].values() for time in times} == {int}
    assert f"Wrote {folder / 'times.json'}. Half of the times of one and the same" in said
    assert re.search(r"1 of \d+ groups, \d:\d\d, about \d:\d\d left", said)


def test_what_was_timed_is_not_timed_again_nor_mixed_with_other_threads(device):
    folder = device[0]
    before = (folder / "times.json").read_bytes()
    assert alone(folder, "--threads", "2").returncode == 0
    refused = alone(folder, "--threads", "1")
    assert refused.returncode == 1
    assert "error: times.json was measured with threads 2, and this is 1; move it" in refused.stderr
    assert (folder / "times.json").read_bytes() == before


def edited(folder, name, **values):
    write_json(folder / name, read(folder / name) | values)


def device_of(plan):
    """What the program writes before it has timed anything."""
    return runner.Measurement(plan, 1).known


PROGRAM = {
    "damaged networks": (
        lambda p: (p / "models.zip").write_bytes(b"PK"), (), "models.zip is not what the plan says"
    ),
    "no networks": (lambda p: (p / "models.zip").unlink(), (), "models.zip: cannot be read (No"),
    "another version": (
        lambda p: edited(p, "plan.json", version=2), (), "plan.json is of version 2, and this pro"
    ),
    "half a plan": (
        lambda p: (p / "plan.json").write_text("{"), (), "plan.json: is damaged (Expecting"
    ),
    "no threads": (lambda p: None, ("--threads", "0"), "--threads is 1 or more, found 0"),
    "another machine": (
        lambda p: write_json(p / "times.json", device_of(p) | {"machine": {"cpu": "other"}}), (),
        "times.json was measured with machine {'cpu': 'other'}, and this is {",
    ),
    "another runtime": (
        lambda p: write_json(p / "times.json", device_of(p) | {"runtime_version": "0.1"}), (),
        "times.json was measured with runtime_version 0.1, and this is ",
    ),
    "times of another plan": (
        lambda p: (p / "times.json").write_text('{"version": 1, "plan": "other"}'), (),
        "times.json was measured with plan other, and this is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAM)
def test_the_program_says_what_is_wrong_with_its_folder(name, plan):
    spoil, arguments, said = PROGRAM[name]
    spoil(plan)
    done = alone(plan, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}"), done.stderr


def test_the_program_says_how_it_is_called(plan):
    done = alone(plan, "--help")
    assert done.returncode == 0
    assert "Times the networks of a plan on this machine" in done.stdout
    assert "--minutes" in done.stdout
    assert (plan / "measure.py").read_text() == program()


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (None, 0, ""),
        (runner.PlanError("a fault"), 1, "error: a fault\n"),
        (KeyboardInterrupt(), 130, "\nStopped. The same command goes on from here.\n"),
    ],
)
def test_the_program_says_how_it_ended_and_takes_one_thread_if_nothing_is_asked(
    ends, code, said, monkeypatch, capsys
):
    asked = []

    class Measurement:
        def __init__(self, folder, threads):
            asked.append(threads)

        def run(self, minutes):
            asked.append(minutes)
            if ends is not None:
                raise ends

    monkeypatch.setattr(runner, "Measurement", Measurement)
    assert runner.main([]) == code
    assert runner.main(["--threads", "3", "--minutes", "2.5"]) == code
    assert asked == [1, None, 3, 2.5]
    assert capsys.readouterr().err == 2 * said


def without(times, name):
    return {k: v for k, v in times.items() if k != name}


FOREIGN = {
    "times that are missing": (
        lambda p: (p / "times.json").unlink(),
        r"times\.json: is missing; check its name",
    ),
    "a time that is missing": (
        lambda p: edited(
            p, "times.json", times=without(read(p / "times.json")["times"], "block0003-one.onnx")
        ),
        r"lacks 1 of \d+ times that are needed, first that of block0003-one\.onnx; run measure",
    ),
    "another plan's times": (
        lambda p: edited(p, "times.json", plan="0" * 64),
        r"holds the times of another plan; take",
    ),
    "half of the times": (
        lambda p: (p / "times.json").write_text('{"ver'),
        r"times\.json: is no file of a plan, or",
    ),
    "times of something else": (
        lambda p: (p / "times.json").write_text("[1]"),
        r"times\.json: is no file of a plan, or",
    ),
    "a time below zero": (
        lambda p: edited(p, "times.json", times={"block0003-one.onnx": [-1, 1, 1]}),
        r"times\.json: is damaged: times\.block0003-one\.onnx\.0: .*greater than 0; copy it",
    ),
    "seconds": (
        lambda p: edited(p, "times.json", times={"block0003-one.onnx": [0.1, 0.1, 0.1]}),
        r"times\.json: is damaged: times\.block0003-one\.onnx\.0: .*integer; copy it again",
    ),
    "another version's times": (
        lambda p: edited(p, "times.json", version=2),
        r"times\.json: is of version 2, and this boundnas reads version 1; write the plan again",
    ),
    "another version's plan": (
        lambda p: edited(p, "plan.json", version=2),
        r"plan\.json: is of version 2, and this bound",
    ),
    "an edited plan": (
        lambda p: edited(p, "plan.json", batch=2),
        r"plan\.json: is not what was written, by its",
    ),
    "a machine that became slower": (
        lambda p: edited(p, "times.json", references=[[100] * 3, [100] * 3, [150] * 3, [150] * 3]),
        r"machine was too noisy: .* took 0% longer or shorter, over time 40%, and 10% is allowed",
    ),
    "a machine that is too noisy": (
        lambda p: edited(p, "times.json", references=[[100, 50, 180]]),
        r"machine was too noisy: one and the same network took 130% longer or shorter, over time 0",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_came_back_is_refused_where_it_is_not_whole(name, plan, known, model):
    spoil, said = FOREIGN[name]
    spoil(plan)
    with pytest.raises(CostError, match=said):
        collect(model, plan)


def test_noise_is_accepted_where_it_is_asked_for(plan, known, model):
    edited(plan, "times.json", references=[[100, 50, 180]])
    assert collect(model, plan, noise=1.3).noise == 1.3


def test_files_hold_one_number_a_tensor_and_are_packed(plan):
    with zipfile.ZipFile(plan / "models.zip") as archive:
        for info in archive.infolist():
            graph = onnx.load_from_string(archive.read(info)).graph
            weights = [onnx.numpy_helper.to_array(w) for w in graph.initializer if len(w.dims) > 1]
            assert weights, info.filename
            assert all(np.unique(w).size == 1 for w in weights), info.filename
            assert info.compress_size < info.file_size / 2, info.filename


def test_a_table_is_of_the_batch_and_the_runtime_that_were_timed(few, tmp_path):
    model = seeded(Small)
    write_plan(model, tmp_path / "plan", batch=3)
    known = read(tmp_path / "plan/plan.json")
    names = [name for group in known["groups"] for name in group["files"]]
    times = {name: [90_000 if "many" in name else 9000] * 3 for name in names}
    write_times(tmp_path / "plan", known["plan"], times, runtime_version="0.7", threads=2)
    table = collect(model, tmp_path / "plan")
    assert (table.runtime_version, table.threads, table.batch) == ("0.7", 2, 3)


class Four(Supernet):
    """Four widths of three options."""

    def __init__(self):
        super().__init__((3,))
        widths = [self.dimension(f"width{i}", (2, 3, 4)) for i in range(4)]
        self.each = nn.ModuleList(map(elastic.Linear, (3, *widths), (*widths, 2)))

    def forward(self, x, arch):
        for layer in self.each:
            x = layer(x, arch).relu()
        return x


def test_a_plan_is_of_its_seed_and_its_batch_and_of_no_time(few, tmp_path):
    model = seeded(Four)
    plain, other = (write_plan(model, tmp_path / str(s), batch=5, seed=s) for s in (0, 1))
    assert plain.batch == 5
    assert plain.blocks == other.blocks
    assert [n.architecture for n in plain.networks] != [n.architecture for n in other.networks]
    with zipfile.ZipFile(tmp_path / "0/models.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in archive.namelist():
            inputs = onnx.load_from_string(archive.read(name)).graph.input
            batches = {each.type.tensor_type.shape.dim[0].dim_value for each in inputs}
            assert batches == ({1} if name == "reference.onnx" else {5}), name


def test_whole_networks_are_timed_all_along_the_coarsest_grid():
    block = lambda n: elsewhere.PlannedBlock(signature="", many=f"m{n}", one=f"o{n}", number=2)  # noqa: E731
    networks = [elsewhere.PlannedNetwork(architecture={}, file=f"n{i:02}") for i in range(16)]
    groups = list(elsewhere._groups(networks, [[block(n) for n in range(32)], [block(99)]]))
    kinds = ["network" if group.files[0][0] == "n" else "block" for group in groups]
    assert kinds == ["network", "block", "block", "network", "block", "block", "block"]
    assert [group.level for group in groups] == [0] * 6 + [1]
    assert groups[0].files == tuple(f"n{i:02}" for i in range(0, 16, 2))
    assert groups[1].files == tuple(f"{kind}{n}" for n in range(8) for kind in "mo")
    rounds = {kind: group.rounds for kind, group in zip(kinds, groups, strict=True)}
    assert rounds == {"network": NETWORK_ROUNDS, "block": BLOCK_ROUNDS}


def test_weights_are_one_number_a_tensor_with_which_values_stay_as_large_as_they_are():
    layers = seeded(lambda: nn.Sequential(nn.Linear(8, 3, bias=False), nn.LayerNorm(3)))
    net = fx.symbolic_trace(layers)
    before = net.get_submodule("0").weight.clone()
    found = constant(net)
    assert torch.equal(found.get_submodule("0")(torch.full((1, 8), 2.0)), torch.full((1, 3), 2.0))
    assert {p.unique().tolist()[0] for p in found.get_submodule("1").parameters()} == {0.75}
    assert torch.equal(net.get_submodule("0").weight, before)


@pytest.fixture
def scripted(plan, monkeypatch):
    """The program of a plan whose reference takes what is said, and what it was asked for."""
    at_work = runner.Measurement(plan, 2)
    script, asked = [], []

    def in_turn(calls, rounds, clock):
        asked.append((len(calls), rounds))
        reference = script.pop(0) if script else (100, 99, 101)
        return [Times(*reference), *(Times(7, 6, 8) for _ in calls[1:])]

    monkeypatch.setattr(runner, "in_turn", in_turn)
    monkeypatch.setattr(runner.Measurement, "_loaded", lambda self, content: content)
    return at_work, script, asked


NOISES = {  # what the reference takes, try by try, after one group that took 100; and which counts
    "quiet": ([(100, 99, 101)], 1),
    "spread": ([(100, 97, 103), (100, 99, 101)], 2),
    "slower": ([(106, 106, 106), (104, 104, 104)], 2),
    "faster": ([(94, 94, 94), (96, 96, 96)], 2),
    "never quiet": ([(100, 90, 110)] * 3 + [(100, 80, 120)], 4),
}


@pytest.mark.parametrize("name", NOISES)
def test_a_group_is_timed_again_with_twice_the_rounds_while_the_device_is_noisy(scripted, name):
    references, tries = NOISES[name]
    at_work, script, asked = scripted
    script += [(100, 100, 100), *references]
    first, second = (group["files"] for group in at_work.plan["groups"][:2])
    at_work._time(first, 3)
    at_work._time(second, 5)
    assert asked == [(len(first) + 1, 3)] + [(len(second) + 1, 5 * 2**n) for n in range(tries)]
    held = read(at_work.folder / "times.json")
    assert held["references"] == [[100, 100, 100], list(references[tries - 1])]
    assert held["times"] == {name: [7, 6, 8] for name in (*first, *second)}


def test_finer_grids_are_left_out_once_the_minutes_are_over(scripted, monkeypatch, capsys):
    at_work, _, asked = scripted
    groups = at_work.plan["groups"]
    finer = [{"files": [f"finer{n}"], "rounds": 1, "level": 1} for n in range(3)]
    at_work.plan["groups"] = [groups[0], finer[0], groups[1], *finer[1:]]
    minutes = iter([0, 5, 20, 30, 30, 99])
    monkeypatch.setattr(runner.time, "monotonic", lambda: 60 * next(minutes))
    monkeypatch.setattr(runner.zipfile.ZipFile, "read", lambda self, name: b"")
    at_work.run(20)
    assert len(asked) == 3, "the coarsest in any case, and what begins within the time"
    assert at_work.known["times"].keys() == {*groups[0]["files"], *groups[1]["files"], "finer0"}
    said = capsys.readouterr().out
    assert "20 minutes are over; finer grids are left out." in said
    assert "same network lay within 2.0%." in said


def test_the_program_computes_with_the_threads_that_were_asked_for(plan):
    options = runner.Measurement(plan, 2).options
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "dtype", "zeros"),
    [("float", "float32", False), ("float16", "float16", False), ("double", "float64", False),
     ("int64", "int64", True), ("int32", "int32", True), ("bool", "bool", True)],
)  # fmt: skip
def test_inputs_are_noise_of_their_type_and_zeros_where_they_are_whole(kind, dtype, zeros):
    given = SimpleNamespace(type=f"tensor({kind})", shape=[2, 50])
    found = runner._noise(given, np.random.default_rng(0))
    assert (found.dtype.name, found.shape) == (dtype, (2, 50))
    assert (abs(found.astype(float)).max() == 0) == zeros
    assert zeros or 0.7 < found.std() < 1.3


def test_a_plan_of_another_model_is_refused(plan, known):
    with pytest.raises(CostError, match=r"plan\.json: is of another model: it has .*, and this"):
        collect(mobilenet(last_width=9), plan)


def test_a_folder_that_is_there_is_left_as_it_is(plan, model):
    before = files(plan)
    with pytest.raises(CostError, match="is there already; name a new folder, or move this one"):
        write_plan(model, plan)
    assert files(plan) == before


def test_another_device_is_planned_for_timed_collected_and_searched_for(
    planned, device, model, tmp_path, monkeypatch
):
    """The whole way by commands; the device is a process with nothing of ours.

    In place of its times, which may be anything, are some that a machine could have: of those that
    were taken the largest network may take less than the smallest.
    """
    monkeypatch.chdir(shutil.copytree(planned[0], tmp_path / "here"))
    assert re.search(r"^Wrote plan: \d+ blocks and 10 networks, [\d,]+ bytes", planned[1])
    shutil.copytree(device[0], "device")
    times = made_up(Path("device"), model)["times"]
    assert times.keys() == read(Path("device/times.json"))["times"].keys()
    edited(Path("device"), "times.json", times=times, references=[[100, 99, 101]])
    for again in range(2):
        done = call("latency", "macs.yaml", "--collect", "device")
        assert done.exit_code == 0, (again, done.stderr)
    assert "Predicted by a table: onnxruntime " in done.stdout
    assert "2 threads, 1 sample a pass" in done.stdout
    assert "Of 6 networks that it was not fitted to" in done.stdout
    assert f"Wrote {Path('latency.json').resolve()}" in done.stdout
    least, most = Latency(model, "latency.json").reach
    ends = f"lower: {least / 1e6}, upper: {most / 1e6}"
    cost = f"cost: {{metric: latency, table: latency.json, {ends}}}"
    Path("run.yaml").write_text(re.sub(r"cost: .*", cost, text()))
    done = call("run", "run.yaml")
    assert done.exit_code == 0, done.stderr
    assert "ms latency" in done.stdout
    assert read(Path("runs/tiny/front.json"))["networks"]


ASKED = {
    "two steps at once": (
        ["macs.yaml", "--plan", "a", "--collect", "b"],
        2,
        "--plan and --collect are two steps",
    ),
    "a folder that is none of a run": (["plan"], 1, "plan: is no run folder"),
    "a folder that is no plan": (
        ["macs.yaml", "--collect", "."],
        2,
        "plan.json: is missing; check its name",
    ),
    "a file in the way": (["macs.yaml", "--plan", "macs.yaml"], 2, "macs.yaml: is there already"),
    "a file in the way of a table": (
        ["macs.yaml", "--out", "macs.yaml"],
        2,
        "macs.yaml: is there already; name another file (--out of the command), or move it away",
    ),
    "a folder in its way": (["macs.yaml", "--out", "plan"], 2, "plan: is there already"),
    "no minutes": (["macs.yaml", "--minutes", "0"], 2, "minutes is above 0, found 0"),
    "an unknown runtime": (["macs.yaml", "--runtime", "other"], 2, "other"),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_done_is_refused_and_creates_nothing(name, planned, monkeypatch):
    arguments, code, said = ASKED[name]
    monkeypatch.chdir(planned[0])
    before = files(planned[0])
    done = call("latency", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert files(planned[0]) == before


def test_a_table_is_never_written_over_another_file(planned, plan, known, monkeypatch):
    monkeypatch.chdir(planned[0])
    plan.joinpath("mine.json").write_text("mine")
    done = call("latency", "macs.yaml", "--collect", plan, "--out", plan / "mine.json")
    assert done.exit_code == 2
    assert "mine.json: is there already; name another file by --out, or move" in done.stderr
    assert plan.joinpath("mine.json").read_text() == "mine"
