"""A configuration names code of one's own: every command works on it, and what is wrong is told."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from tests.reliability.tiny import STEPS
from tests.reliability.tiny import text as tiny
from tests.small import files
from tests.test_cli import call, spawn

import boundnas as bn
from boundnas.app.importing import imported
from boundnas.app.networks import made
from boundnas.app.own import COME_ALONG
from boundnas.config import OBSERVERS, TASKS, read_config, write_config
from boundnas.errors import ConfigError, RunError

HERE = Path(__file__).parent / "extension"
CONFIG = (HERE / "own.yaml").read_text()


def project(folder, text=CONFIG):
    """A folder with the configuration and the file that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "own.py", folder)
    (folder / "own.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in which ``boundnas run`` was called in a fresh process; not to be changed."""
    folder = project(tmp_path_factory.mktemp("whole") / "project")
    done = spawn(folder, "run", "own.yaml")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A copy of it elsewhere, in which one works."""
    monkeypatch.chdir(shutil.copytree(finished[0], tmp_path / "moved"))
    return Path.cwd()


def numbers(folder):
    """What a run came to."""
    names = ("metrics.jsonl", "boundaries.jsonl", "bounds.json", "front.json")
    found = files(folder)
    return {name: found[name] for name in (*names, "search/evaluations.jsonl")}


def test_one_file_of_code_and_one_configuration_do_the_whole_job(finished):
    folder, done = finished
    found = files(folder / "runs" / "tones")
    assert {"front.json", "report.html", "validation.jsonl"} <= found.keys()
    assert found["told.txt"] == b"23"
    assert b"kHz" in found["report.html"]
    assert [n for n in found if n.endswith("model.onnx")]
    assert re.search("energy . +MACs . parameters . validation error", done.stdout)
    assert not [name for name in files(folder) if name.endswith(".pyc")]


COMMANDS = {
    "run": ("own.yaml", "Report: "),
    "train": ("own.yaml", "Trained: "),
    "search": ("runs/tones", "validation error"),
    "export": ("runs/tones", "Networks: "),
    "report": ("runs/tones", "Report: "),
    "best": ("runs/tones", "test error"),
    "compare": ("runs/tones", "| all | 1 |"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_where_the_project_was_moved_to(command, copied):
    before = files(copied / "runs" / "tones")
    argument, said = COMMANDS[command]
    done = call(command, argument)
    assert (done.exit_code, said in done.stdout) == (0, True), done.output
    assert files(copied / "runs" / "tones") == before, "nothing was done twice"


def test_a_network_that_is_made_elastic_starts_from_its_weights(tmp_path, monkeypatch):
    """Its step size is then another one, which no command mistakes for an edited configuration."""
    text = CONFIG.replace("trained: false\n", "").replace("[onnx]", "[]")
    text = "".join(line for line in text.splitlines(True) if line[:3] not in ("opt", "sch"))
    monkeypatch.chdir(project(tmp_path, text))
    assert call("run", "own.yaml").exit_code == 0
    before = files(tmp_path)
    for command in (("run", "own.yaml"), ("search", "runs/tones")):
        assert call(*command).exit_code == 0
    assert files(tmp_path) == before, "nothing was done twice"
    settings = bn.open("runs/tones").settings
    assert (settings.learning_rate, settings.start_std) == (0.01, 0.5)
    assert call("compare", "runs/tones").exit_code == 0


@pytest.mark.parametrize("command", ["report", "best", "compare"])
def test_what_only_reads_runs_no_code(command, copied):
    (copied / "own.py").unlink()
    assert call(command, "runs/tones").exit_code == 0


def test_it_is_the_run_that_python_makes_of_the_same_parts(finished, tmp_path):
    own = {n: imported(str(HERE / "own.py"), n) for n in ("tones", "network", "Height", "Energy")}
    data = own["tones"](noise=0.05, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = bn.elasticize(own["network"](), data.example[None])
    run = bn.fit(
        model,
        data,
        cost=own["Energy"](model),
        cost_range=(1e4, 3.5e4),
        settings=bn.TrainSettings(steps=24, batch_size=16, checkpoint_every=12),
        folder=tmp_path / "run",
        task=own["Height"](unit="kHz"),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01),
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR,
        trained=False,
    )
    few = bn.SearchSettings(initial=4, rounds=1, crossovers=1, mutations=1, calibration_images=32)
    bn.search(run, few)
    assert numbers(run.folder.path) == numbers(finished[0] / "runs" / "tones")


def test_it_is_opened_from_its_folder_alone(copied, monkeypatch):
    monkeypatch.chdir("/")
    run = bn.open(copied / "runs" / "tones")
    assert (run.task.metric, run.task.unit, run.ranges) == (
        "error",
        "kHz",
        {"energy": (1e4, 3.5e4)},
    )
    before = numbers(copied / "runs" / "tones")
    assert bn.search(run).best(energy=3e4).costs["energy"] <= 3e4
    assert numbers(copied / "runs" / "tones") == before


CHANGES = {
    "the task": ("error", "mistake", "task = Height"),
    "the cost": ("46 *", "47 *", "cost = |terms of the cost|code of Energy|costs of twelve"),
    "the network": ("32, 16)", "32, 12)", "shape of|module|dimension"),
    "the data": ("0, 6, 16", "0, 7, 16", "inputs of data.train"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_code_does_not_go_on_from_it(what, copied):
    old, new, said = CHANGES[what]
    text = (copied / "own.py").read_text()
    new_text = text.replace("nn.Linear(16, 1)", "nn.Linear(12, 1)") if "12" in new else text
    (copied / "own.py").write_text(new_text.replace(old, new))
    with pytest.raises(RunError, match=f"holds a run with ({said})"):
        bn.open("runs/tones")
    refused = call("run", "own.yaml")
    assert refused.exit_code == 1
    assert re.search(f"is of a run with ({said})", refused.stderr), refused.stderr


SPACE = "space: own.py:network"
FAULTS = {
    "no file": (SPACE, "space: other.py:network", "5  space  .*other.py cannot be read"),
    "no such name": (SPACE, "space: own.py:netwrk", "5  space  .*has no netwrk; did you mean net"),
    "no module": (SPACE, "space: nowhere.net:Net", "5  space  there is no module nowhere; install"),
    "no name": (SPACE, "space: own.py", "5  space  must be FILE.py:NAME .*write own.py:NAME"),
    "a file that fails": (SPACE, "space: bad.py:late", "5  space  .*fails at its line 9, ValueErr"),
    "no Python": (SPACE, "space: odd.py:f", "5  space  importing .* at its line 1, SyntaxError"),
    "a call that fails": (SPACE, "space: ok.py:fails", "5  space  calling .* line 6, Attrib.*nope"),
    "a call that exits": (
        SPACE,
        "space: ok.py:leaves",
        "5  space  calling .* line 9, SystemExit: 3",
    ),
    "a name that fails": (SPACE, "space: magic.py:it", "5  space  it of .* line 2, ValueError: it"),
    "another kind": (SPACE, "space: ok.py:three", "5  space  gave a list, where a boundnas.Super"),
    "a number": (SPACE, "space: ok.py:number", "5  space  .*:number is a int; name a class or a f"),
    "a network": (SPACE, "space: ok.py:net", "5  space  .*is a network already; name a function"),
    "what is not there": (
        SPACE,
        "space: ok.py:needs",
        r"5  space  .*\(more\).*missing.*seed, data,",
    ),
    "a branch": (SPACE, "space: ok.py:branch", "ConvertError"),
    "a format": (
        SPACE,
        "space: ok.py:unwritten",
        "export.formats: model.onnx: no such file .*median.*; leave this format out",
    ),
    "a mean over samples": (SPACE, "space: ok.py:mixed", "ConvertError: .*for a sample alone than"),
    "pairs of samples": (SPACE, "space: ok.py:paired", "ConvertError: .*for a sample alone than"),
    "a word": (
        "{use: own.py:Height, unit: kHz}",
        "regresion",
        "7  task  .*did you mean regression?",
    ),
    "its argument": ("unit: kHz", "unti: kHz", r"7  task  .*\(unit\) cannot be called.*'unti'"),
    "a value": ("unit: kHz", "unit: .inf", "7  task  the argument unit must be .*finite"),
    "a name": ("unit: kHz", "a b: 1", '7  task  an argument has a name as Python .*"a b"'),
    "data": ("own.py:tones", "ok.py:three", r"4  data  .*\(\) cannot be called.*'noise'"),
    "a cost": (
        "own.py:Energy",
        "own.py:Told",
        r"8  cost\[0\].metric  .*class, but not a boundnas.c",
    ),
    "a range": ("lower: 1000, upper: 3500", "lower: 1, upper: 2", "CostError: .* 1 to 2 pJ"),
    "an optimizer": (
        "lr: 0.01",
        "lrr: 0.01",
        "9  optimizer  calling torch.optim:AdamW fails, Type",
    ),
    "no optimizer": (
        "torch.optim:AdamW, lr",
        "torch.nn:Linear, in_features",
        "9  optimizer  calling",
    ),
    "no schedule": (
        "CosineAnnealingLR",
        "CosineAnealingLR",
        "10  schedule  .*did you mean CosineAnnealingLR",
    ),
    "two step sizes": (
        "steps: 24",
        "steps: 24, learning_rate: 0.2",
        "takes the place of: learning",
    ),
    "an observer": (
        "own.py:Told",
        "own.py:Energy",
        r"11  observers\[0\]  .*not a boundnas.Observer",
    ),
    "its settings": (
        "validation, every",
        "validation, evry",
        r"11  observers\[1\]  validation .*be called",
    ),
    "data of no classes": (SPACE, "space: {width: 0.5}", "takes square images .*FILE.py:NAME"),
}
MORE = {
    "bad.py": "import own\n" * 8 + "raise ValueError('late')\n",
    "odd.py": "def f(:\n",
    "magic.py": "def __getattr__(name):\n    raise ValueError(name)\n",
    "ok.py": """from torch import nn

number, net = 3, nn.Linear(2, 2)

def fails(example):
    return example.nope

def leaves():
    raise SystemExit(3)

def three():
    return [1, 2, 3]

def needs(more):
    return nn.Linear(16, 1)

def around(inner):
    first = nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8)
    return nn.Sequential(*first, inner, nn.Linear(8, 1))

class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)

def unwritten():
    return around(Function(lambda x: x - x.median(1, True).values))

def mixed():
    return around(Function(lambda x: x - x.mean(0)))

def paired():
    return around(Function(lambda x: x + x.flip(0)))

class branch(nn.Linear):
    def __init__(self):
        super().__init__(16, 1)

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x
""",
}


def refused(folder, old, new):
    assert old in CONFIG
    project(folder, CONFIG.replace(old, new))
    for name, text in MORE.items():
        (folder / name).write_text(text)
    before = sorted(files(folder))
    done = call("run", folder / "own.yaml", "--runs", folder / "runs")
    assert done.exit_code == 2, done.stderr
    assert sorted(files(folder)) == before, "nothing was created"
    return done.stderr


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_told_with_its_line_and_nothing_is_created(what, tmp_path):
    old, new, said = FAULTS[what]
    assert re.search(said, refused(tmp_path, old, new)), refused(tmp_path, old, new)


def test_all_that_is_not_there_is_told_at_once(tmp_path):
    said = refused(tmp_path, "own.py:", "none.py:")
    assert "own.yaml has 5 problems" in said
    assert re.findall(r"line (\d+)", said) == ["4", "5", "7", "8", "11"]


def test_code_that_fails_while_it_trains_is_said_to_be_the_users(tmp_path):
    task = CONFIG.replace("{use: own.py:Height, unit: kHz}", "own.py:Late")
    code = project(tmp_path, task) / "own.py"
    code.write_text(code.read_text().replace("class Energy", f"{LATE}class Energy"))
    failed = call("train", tmp_path / "own.yaml", "--runs", tmp_path / "runs")
    assert failed.exit_code == 1
    said = r"IndexError: no more \(.*own\.py, line \d+\); this code is yours: mend it and run again"
    assert re.search(said, failed.stderr), failed.stderr


LATE = """class Late(Height):
    calls = 0

    def loss(self, outputs, targets):
        Late.calls += 1
        if Late.calls > 9:
            raise IndexError("no more")
        return super().loss(outputs, targets)


"""


def test_what_comes_along_is_what_a_configuration_may_name():
    assert sorted(COME_ALONG) == sorted((*TASKS, *OBSERVERS))


def test_a_file_is_read_anew_once_it_has_changed(tmp_path):
    file = tmp_path / "number.py"
    for number in (1, 2):
        file.write_text(f"number = {number}\n")
        assert imported(str(file), "number") == number
    assert imported(str(file), "number.real") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["number.py"]


def test_neighbours_are_imported_as_by_a_script(tmp_path):
    (tmp_path / "beside_it.py").write_text("answer = 42\n")
    (tmp_path / "it.py").write_text("from beside_it import answer\n")
    assert imported(str(tmp_path / "it.py"), "answer") == 42


def test_what_is_written_into_a_run_folder_names_the_same_files(tmp_path):
    config = read_config(project(tmp_path) / "own.yaml")
    inside = tmp_path / "runs" / "tones"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text(write_config(config, inside))
    assert str(tmp_path) not in (inside / "config.yaml").read_text()
    assert read_config(inside / "config.yaml") == config
    os.rename(tmp_path / "runs", tmp_path / "other")
    assert read_config(tmp_path / "other" / "tones" / "config.yaml") == config


def test_a_configuration_made_in_python_names_it_too():
    config = read_config(HERE / "own.yaml")
    with pytest.raises(ConfigError, match="the configuration has 1 problem\n  task  "):
        made(config.model_copy(update={"task": bn.settings.Use("none.py:Task")}))


DIGITS = """import torch
import boundnas as bn

def digits(classes=None):
    found = bn.data.digits()
    pairs = {}
    for split in ("train", "test"):
        images, labels = getattr(found, split).take(torch.arange(80))
        pairs[split] = [(x.float() / 255, int(y)) for x, y in zip(images, labels)]
    return bn.Data(pairs["train"], test=pairs["test"], name="digits", classes=classes)
"""


def test_a_family_that_comes_along_takes_images_of_ones_own(tmp_path):
    (tmp_path / "images.py").write_text(DIGITS)
    named = ", ".join(f"no {i}" for i in range(10))
    data = f"data: {{use: images.py:digits, classes: [{named}]}}"
    text = tiny().replace("data:\n  set: digits", data).replace(f"steps: {STEPS}", "steps: 3")
    (tmp_path / "run.yaml").write_text(text)
    done = call("run", tmp_path / "run.yaml", "--runs", tmp_path / "runs")
    assert done.exit_code == 0, done.stderr
    assert "no 9" in (tmp_path / "runs" / "tiny" / "report.html").read_text()
