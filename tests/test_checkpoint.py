import hashlib
import json
import logging
from contextlib import suppress
from itertools import count as counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.faults import WRITING, Killed, damages, failing_at, largest_file

from boundnas.errors import RunError
from boundnas.store import checkpoint

FILES = ("state.safetensors", "state.json", "manifest.json")


def state(step):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(2, 3, generator=generator)
    tensors = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "expanded": torch.tensor([float(step)]).expand(3),
        "empty": torch.empty(0, 4),
        "count": torch.tensor(step),
        "half": weight.bfloat16(),
        "rng": torch.arange(5, dtype=torch.uint8),
        "mask": weight > 0,
    }
    return tensors, {"step": step, "lr": 0.1 + 1e-17 * step, "list": [1, None, "ü", True]}


def save(folder, step, **options):
    checkpoint.save(folder, step, *state(step), **options)


def assert_whole(found, step):
    tensors, values = state(step)
    assert (found.step, found.values) == (step, values)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_read_back_and_shares_no_memory(tmp_path):
    save(tmp_path, 1200)
    assert names(tmp_path / "step-00001200") == sorted(FILES)
    found = checkpoint.newest(tmp_path)
    assert_whole(found, 1200)
    found.tensors["weight"].zero_()
    assert torch.equal(found.tensors["tied"], state(1200)[0]["tied"])


def test_equal_states_are_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        save(tmp_path / folder, 7)
    for name in FILES:
        a, b = ((tmp_path / f / "step-00000007" / name).read_bytes() for f in ("a", "b"))
        assert a == b


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_value_survives(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("values")
    checkpoint.save(folder, 0, {}, values)
    found = checkpoint.newest(folder)
    assert found.tensors == {}
    assert found.values == values


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept(tmp_path, keep):
    for step in (5, 50, 99_999_999, 100_000_000, 2_000_000_000):
        save(tmp_path, step, keep=keep)
        assert_whole(checkpoint.newest(tmp_path), step)
    assert len(names(tmp_path)) == keep


def test_saving_a_step_again_leaves_a_whole_one_and_replaces_a_damaged_one(tmp_path):
    save(tmp_path, 3)
    file = tmp_path / "step-00000003" / "state.json"
    before = file.stat()
    save(tmp_path, 3)
    assert file.stat() == before
    file.write_text("{}")
    save(tmp_path, 3)
    assert_whole(checkpoint.newest(tmp_path), 3)
    assert names(tmp_path) == ["step-00000003"]


def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-00000002" / "state.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert_whole(checkpoint.newest(tmp_path), 1)
    assert "step-00000002/state.json: is missing" in caplog.text


def test_a_damaged_newer_one_never_costs_the_whole_older_ones(tmp_path):
    for step in (10, 20):
        save(tmp_path, step)
    (tmp_path / "step-00000020" / "manifest.json").write_text("{}")
    save(tmp_path, 15)
    assert names(tmp_path) == ["step-00000010", "step-00000015", "step-00000020"]
    assert_whole(checkpoint.newest(tmp_path), 15)


@pytest.mark.parametrize("name", FILES)
def test_no_damage_is_ever_accepted(tmp_path, name, caplog):
    caplog.set_level(logging.ERROR)
    checkpoint.save(tmp_path, 4, {"weight": torch.tensor([0.5, -3.0])}, {"lr": 0.1})
    file = tmp_path / "step-00000004" / name
    data = file.read_bytes()
    for damaged in damages(data):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match="none of its checkpoints is whole"):
            checkpoint.newest(tmp_path)
    file.write_bytes(data)
    assert checkpoint.newest(tmp_path).values == {"lr": 0.1}


def test_a_checkpoint_under_the_name_of_another_step_is_not_accepted(tmp_path):
    save(tmp_path, 4)
    (tmp_path / "step-00000004").rename(tmp_path / "step-00000005")
    with pytest.raises(RunError, match=r"step-00000005: the files differ.*put back a copy"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.safetensors", b"\x80\x04]."),
        ("state.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        (
            "state.safetensors",
            (lambda header: len(header).to_bytes(8, "little") + header)(
                b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'
            )
            + b"0000",
        ),
        ("state.json", b"[" * 100_000),
        ("state.json", b"9" * 10_000),
        ("state.json", b"\xff"),
    ],
)
def test_hostile_files_with_a_fitting_manifest_are_refused_in_the_same_way(tmp_path, name, content):
    save(tmp_path, 4)
    folder = tmp_path / "step-00000004"
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with pytest.raises(RunError, match="holds no state of a run"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("again", [False, True], ids=["new step", "damaged step"])
@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), Killed()], ids=["fails", "killed"]
)
def test_whatever_call_fails_the_newest_is_the_old_or_the_new_state_whole(tmp_path, error, again):
    for number in counter(1):
        folder = tmp_path / str(number)
        for step in (1, 2):
            save(folder, step)
        if again:
            save(folder, 3)
            save(folder, 2)
            (folder / "step-00000003" / "state.json").write_text("{}")
        failing = failing_at(number, error, (*WRITING, "mkdir", "rmdir", "unlink"))
        with suppress(RunError, Killed), failing as calls:
            save(folder, 3)
        if not isinstance(error, Killed):
            assert not list(folder.glob("*.partial"))
        found = checkpoint.newest(folder)
        assert_whole(found, found.step)
        assert found.step in (2, 3)
        save(folder, 4)
        assert_whole(checkpoint.newest(folder), 4)
        assert len(names(folder)) == 2, "the next save removes what was left over"
        if next(calls) <= number:
            break  # it did not come to this call any more
    assert number > 12


@pytest.mark.parametrize("size", [0, 1, 7, 8, 64, 200, 300, 400, 500])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_litter(tmp_path, size):
    save(tmp_path, 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with (
        pytest.raises(
            RunError,
            match=r"step-00000002: cannot be written .*[\d,]+ bytes are needed, [\d,]+ are free",
        ),
        largest_file(size),
    ):
        save(tmp_path, 2)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert names(tmp_path) == ["step-00000001"]
    assert_whole(checkpoint.newest(tmp_path), 1)


def test_what_a_process_left_that_died_behind_the_last_checkpoint_is_removed(tmp_path):
    save(tmp_path, 3)
    (tmp_path / ".boundnas-1-0123abcd.removed").mkdir()
    (tmp_path / ".boundnas-1-0123abcd.removed" / "state.json").write_text("{}")
    assert checkpoint.newest(tmp_path).step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
