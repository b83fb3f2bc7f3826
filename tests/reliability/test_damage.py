"""Row 6: no checkpoint and no export with a flipped bit or a missing end is believed."""

import subprocess
from importlib import import_module

import pytest
from tests.faults import damages
from tests.reliability.tiny import FORMAT, STEPS, uninterrupted
from tests.small import files

from boundnas.errors import ExportError, RunError
from boundnas.store import checkpoint

export = import_module("boundnas.deploy.networks")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The run folder of the tiny run with its exports, and one checkpoint alone."""
    folder = tmp_path_factory.mktemp("tiny")
    uninterrupted(folder, FORMAT)
    held = folder / "runs" / "tiny"
    older, _ = sorted((held / "checkpoints").iterdir())
    older.rename(folder / "older")
    return held


def check_checkpoint(folder):
    with pytest.raises(RunError, match="none of its checkpoints is whole"):
        checkpoint.newest(folder.parent)


def check_export(folder):
    with pytest.raises(ExportError, match="do not use this network"):
        export.verify(folder)


@pytest.mark.parametrize(
    ("kind", "check"), [("checkpoints", check_checkpoint), ("networks", check_export)]
)
def test_no_damage_is_believed(kind, check, tiny, full, figure):
    folder = sorted((tiny / kind).iterdir())[0]
    cases = 0
    for name, data in files(folder).items():
        for damaged in damages(data, 1 if full else max(1, len(data) // 100)):
            (folder / name).write_bytes(damaged)
            check(folder)
            cases += 1
        (folder / name).write_bytes(data)
    figure(f"{cases:,} damaged {kind}, none believed")
    assert not full or cases >= 20_000


def test_what_is_whole_is_believed(tiny):
    assert checkpoint.newest(tiny / "checkpoints").step == STEPS
    for folder in (tiny / "networks").iterdir():
        export.verify(folder)
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.parametrize("change", ["a file more", "a file less", "no sums", "sums in disorder"])
def test_an_export_of_other_files_is_not_believed(change, tiny):
    folder = sorted((tiny / "networks").iterdir())[0]
    held = files(folder)
    if change == "a file more":
        (folder / "more").touch()
    elif change == "a file less":
        (folder / "card.md").unlink()
    elif change == "no sums":
        (folder / "SHA256SUMS").unlink()
    else:
        lines = held["SHA256SUMS"].splitlines(keepends=True)
        (folder / "SHA256SUMS").write_bytes(b"".join(reversed(lines)))
    check_export(folder)
    for path in folder.iterdir():
        path.unlink()
    for name, content in held.items():
        (folder / name).write_bytes(content)
    export.verify(folder)
