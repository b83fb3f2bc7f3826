import errno
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults import Killed, failing_at, largest_file

from boundnas.errors import RunError
from boundnas.store.environment import environment
from boundnas.store.files import cannot_write, canonical_json, write_json, write_text
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines, read_jsonl

CONFIG = "seed: 0\ntrain:\n  steps: 40\n"


def tree(folder):
    """Every file below a folder with its contents."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


FAILURES = [OSError(28, "No space left on device"), Killed()]


def test_a_new_run_holds_its_configuration_and_nothing_else(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / "first", CONFIG)
    assert tree(tmp_path / "runs") == {"first": None, "first/config.yaml": CONFIG.encode()}
    assert RunFolder.open(run.path) == run


def test_a_run_of_the_same_configuration_is_continued(tmp_path):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    write_json(run.front, [])
    before = tree(tmp_path)
    assert RunFolder.create(tmp_path / "run", CONFIG) == run
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG.replace("40", "80"), r"line 3 .* is '  steps: 40', now it is '  steps: 80'"),
        (CONFIG + "x: 1\n", "line 4 .* is missing, now it is 'x: 1'"),
        ("seed: 0\n", "line 2 .* is 'train:', now it is missing"),
    ],
)
def test_a_run_of_another_configuration_is_refused_naming_the_first_difference(
    tmp_path, config, message
):
    RunFolder.create(tmp_path / "run", CONFIG)
    before = tree(tmp_path)
    with pytest.raises(RunError, match=f"run: .*{message}; choose another name.*or remove"):
        RunFolder.create(tmp_path / "run", config)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("use", [RunFolder.open, lambda path: RunFolder.create(path, CONFIG)])
@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_what_is_no_run_folder_is_refused_and_left_alone(tmp_path, use, kind):
    path = tmp_path / "thing"
    if kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "mine").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"thing: is no run folder.*start a new one"):
        use(path)
    assert tree(tmp_path) == before


def test_a_missing_run_folder_is_not_opened(tmp_path):
    with pytest.raises(RunError, match="run: is missing"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize("error", FAILURES, ids=["disk full", "killed"])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_run_folder_is_created_whole_or_not_at_all(tmp_path, number, error):
    path = tmp_path / "run"
    with suppress(RunError, Killed), failing_at(number, error):
        RunFolder.create(path, CONFIG)
    assert not path.exists() or RunFolder.open(path).config.read_text() == CONFIG
    if not isinstance(error, Killed):
        assert set(tree(tmp_path)) <= {"run", "run/config.yaml"}
    RunFolder.create(path, CONFIG)
    assert set(tree(tmp_path)) == {"run", "run/config.yaml"}


def test_every_name_in_the_run_folder_lies_within_it_and_differs(tmp_path):
    run = RunFolder(tmp_path)
    names = [n for n, v in vars(RunFolder).items() if isinstance(v, property)]
    paths = [getattr(run, name).relative_to(tmp_path).as_posix() for name in names]
    assert sorted(paths) == [
        ".lock",
        "boundaries.jsonl",
        "bounds.json",
        "checkpoints",
        "config.yaml",
        "environment.json",
        "front.json",
        "latency.json",
        "metrics.jsonl",
        "networks",
        "report.html",
        "search/evaluations.jsonl",
        "search/finalists.jsonl",
        "space.json",
        "validation.jsonl",
    ]


@pytest.mark.parametrize("error", FAILURES, ids=["disk full", "killed"])
@pytest.mark.parametrize("number", range(1, 5))
def test_a_text_file_is_old_or_new_whenever_writing_fails(tmp_path, number, error):
    path = tmp_path / "front.json"
    write_text(path, "old")
    with suppress(RunError, Killed), failing_at(number, error):
        write_text(path, "new")
    assert path.read_text() in ("old", "new")
    if not isinstance(error, Killed):
        assert set(tree(tmp_path)) == {"front.json"}
    write_text(path, "newest")
    assert tree(tmp_path) == {"front.json": b"newest"}


@pytest.mark.parametrize("size", [0, 1, 100, 999])
def test_a_full_disk_leaves_the_old_text_and_names_path_need_and_free(tmp_path, size):
    path = tmp_path / "report.html"
    write_text(path, "old")
    with (
        pytest.raises(
            RunError, match=r"report\.html: cannot be written .*1,000 bytes are needed, [\d,]+ are"
        ),
        largest_file(size),
    ):
        write_text(path, "x" * 1000)
    assert tree(tmp_path) == {"report.html": b"old"}


ADVICE = {
    errno.ENOSPC: "make room, or check the quota and the permissions of {}, then run again",
    errno.EACCES: "make room, or check the quota and the permissions of {}, then run again",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "allow more open files (ulimit -n) and run again",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@pytest.mark.parametrize(("number", "advice"), ADVICE.items(), ids=errno.errorcode.get)
def test_what_to_do_about_a_file_that_cannot_be_written_fits_the_reason(number, advice, tmp_path):
    told = str(cannot_write(tmp_path / "x", 1000, OSError(number, "reason")))
    assert told.startswith(f"{tmp_path / 'x'}: cannot be written (reason); 1,000 bytes are needed")
    assert told.endswith(f"free on this disk; {advice.format(tmp_path)}")


def test_a_text_file_is_never_written_through_a_link_left_in_its_place(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / ".front.json.partial").symlink_to(outside)
    write_text(tmp_path / "front.json", "[]")
    assert outside.read_text() == "mine"


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(dict(reversed(value.items()))) == text


def test_text_stays_readable_and_what_is_no_number_is_no_json():
    assert canonical_json({"class": "Äpfel"}) == '{\n  "class": "Äpfel"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"score": float("nan")})


def log(path, steps):
    with JsonLines(path) as lines:
        for step in steps:
            lines.append({"step": step, "loss": step / 7})


@pytest.mark.parametrize("kept", range(-1, 8))
def test_a_resumed_log_equals_one_that_was_never_interrupted(tmp_path, kept):
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    steps = [0, 0, 2, 4, 4, 6]
    log(whole, steps)
    log(resumed, steps[: kept + 1 or None])
    with resumed.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    with JsonLines(resumed) as lines:
        lines.truncate_after(kept)
        assert all(row["step"] <= kept for row in read_jsonl(resumed))
        for step in steps[len(read_jsonl(resumed)) :]:
            lines.append({"step": step, "loss": step / 7})
    assert resumed.read_bytes() == whole.read_bytes()


def test_each_row_is_on_disk_when_append_returns_and_a_torn_tail_is_no_row(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    assert read_jsonl(path) == []
    with JsonLines(path) as lines:
        lines.append({"step": 1, "who": "Zoë"})
        assert read_jsonl(path) == [{"step": 1, "who": "Zoë"}]
        with path.open("ab") as file:
            file.write(b'{"step": 2')
        assert read_jsonl(path) == [{"step": 1, "who": "Zoë"}]


def test_damage_inside_a_log_names_the_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step" 2}\n{"step": 3}\n')
    for use in (read_jsonl, JsonLines):
        with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: is no JSON object"):
            use(path)
    path.write_text('{"step": 1}\n{"stop": 2}\n{"step": 3}\n')
    with JsonLines(path) as lines, pytest.raises(RunError, match="line 2: has no whole number"):
        lines.truncate_after(5)


def test_a_full_disk_leaves_no_half_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log(path, range(3))
    before = path.read_bytes()
    with JsonLines(path) as lines:
        with (
            pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written"),
            largest_file(len(before) + 5),
        ):
            lines.append({"step": 3})
        assert path.read_bytes() == before
        lines.append({"step": 3})
    assert read_jsonl(path)[-1] == {"step": 3}


def test_a_folder_in_the_place_of_a_log_is_one_clear_error(tmp_path):
    for use in (read_jsonl, JsonLines):
        with pytest.raises(RunError, match="is a folder, where a regular file should be"):
            use(tmp_path)


def test_the_environment_is_json_and_leaves_nothing_empty():
    assert json.loads(canonical_json(environment())) == environment()
    assert all(environment().values())
