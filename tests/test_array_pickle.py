"""Pickles and npz files: arrays are read exactly, all else is refused and never run."""

import builtins
import io
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults import damages
from tests.published import python2_pickle

from boundnas.data import array_pickle
from boundnas.data.array_pickle import NUMBERS, read_pickle
from boundnas.data.array_zip import read_npz
from boundnas.errors import DataError

RECORD = {
    "data": np.arange(24, dtype=np.uint8).reshape(2, 12),
    "labels": [1, 300, 70_000, -5],
    "mean": np.linspace(0, 1, 5),
    "filenames": ["a.png", "caf\xe9.png"],
    "shape": (3, (), (1, 2), None, True, False, 0.5),
    "again": {"empty": []},
}


def read(content):
    return read_pickle(io.BytesIO(content), "batch")


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_and_plain_values_are_read_exactly(protocol):
    record = {**RECORD, "raw": b"\x00\xff" * 300}
    assert same(read(pickle.dumps(record, protocol)), record)


def test_text_of_python_2_comes_as_text():
    assert same(read(python2_pickle({**RECORD, "long": "x" * 300})), {**RECORD, "long": "x" * 300})


def test_a_value_mentioned_twice_is_read_twice():
    array = np.arange(3)
    assert same(
        read(pickle.dumps({"a": [array, array], "b": array}, 3)), {"a": [array, array], "b": array}
    )


@pytest.mark.parametrize("number", sorted(NUMBERS))
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_of_number_is_read_in_both_byte_orders(number, order):
    array = np.array([[0, 1, 1], [1, 0, 0]]).astype(order + number)
    for given_array in (array, np.asfortranarray(array), array[:0], array[0]):
        assert same(read(pickle.dumps({"a": given_array}, 3))["a"], given_array)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Plain:
    def __init__(self):
        self.inside = 1


def calls(function, *arguments):
    return lambda protocol: pickle.dumps({"data": Calls(function, *arguments)}, protocol)


def holding(value):
    return lambda protocol: pickle.dumps({"data": value}, protocol)


def globals_of(*lines):
    """A call without arguments of a function by its name."""
    return lambda _: b"\x80\x02" + "".join(lines).encode("latin-1") + b")R."


ATTACKS = {
    "system": calls(os.system, "touch harmed"),
    "eval": calls(eval, "open('harmed', 'w')"),
    "exec": calls(exec, "open('harmed', 'w')"),
    "open": calls(open, "harmed", "w"),
    "getattr": calls(getattr, builtins.str, "join"),
    "import": calls(__import__, "antigravity"),
    "an object": holding(Plain()),
    "a set": holding({1, 2}),
    "a class": holding(Plain),
    "a complex number": holding(1j),
    "numpy's load": calls(np.load, "harmed"),
    "numpy's fromfile": calls(np.fromfile, "harmed"),
    "a masked array": holding(np.ma.masked_array([1, 2], [True, False])),
    "an array of objects": holding(np.array([{}, None], object)),
    "an array of records": holding(np.zeros(2, "u1,u2")),
    "an array of text": holding(np.array(["a", "b"])),
    "an array of dates": holding(np.array(["2020"], "M8[Y]")),
    "an array scalar": holding(np.float64(1)),
    "a module": globals_of("cos\nsystem\n"),
    "a hidden module": globals_of("cnumpy.core.multiarray\n_reconstruct\n"),
    "a long name": globals_of("c" + "x" * 5000 + "\ny\n"),
    "INST": lambda _: b"(S'touch harmed'\nios\nsystem\n.",
    "OBJ": lambda _: b"(cos\nsystem\nS'touch harmed'\no.",
    "EXT1": lambda _: b"\x80\x02\x82\x01.",
    "a persistent id": lambda _: b"Pharmed\n.",
    "NEWOBJ": lambda _: b"\x80\x02cbuiltins\nobject\n)\x81.",
    "a name off the stack": lambda _: b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.",
    "a name that is a list": lambda _: b"\x80\x04]]\x93)R.",
    "an encoding": lambda _: (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    ),
    "a called array": lambda _: b"\x80\x02cnumpy\nndarray\n(KcKctR.",
    "a state of a list": lambda _: b"\x80\x02]}b.",
    "a key that is a list": lambda _: b"\x80\x02}]K\x01s.",
    "an entry in a list": lambda _: b"\x80\x02]K\x01K\x02s.",
    "an item in a mapping": lambda _: b"\x80\x02}K\x01a.",
    "two values": lambda _: b"\x80\x02}}.",
    "no value": lambda _: b"\x80\x02.",
    "a list alone": lambda _: b"\x80\x02].",
    "an empty memo": lambda _: b"\x80\x02h\x05.",
    "an unmatched mark": lambda _: b"\x80\x02}(.",
    "no mark": lambda _: b"\x80\x02}u.",
    "bytes beyond the file": lambda _: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "bytes beyond 2^63": lambda _: b"\x80\x04\x8e" + b"\xff" * 8 + b"abc.",
    "a frame beyond the file": lambda _: b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"K\x01.",
    "text beyond the file": lambda _: b"T" + struct.pack("<i", 1 << 30) + b"abc.",
    "a negative length": lambda _: b"T" + struct.pack("<i", -1) + b"abc.",
    "a number of a million digits": lambda _: b"I" + b"9" * 1_000_000 + b"\n.",
    "half a character": lambda _: b"X\x01\x00\x00\x00\xff.",
    "a bomb of depth": lambda _: b"\x80\x02" + b"K\x01" + b"\x85" * 100_000 + b".",
    "a deep key": lambda _: b"\x80\x02}K\x01" + b"\x85" * 100_000 + b"K\x01s.",
    "a deep name": lambda _: b"\x80\x04K\x01" + b"\x85" * 100_000 + b"\x8c\x01a\x93.",
    "a number as a key": lambda _: b"\x80\x02}K\x01K\x01s.",
    "nothing": lambda _: b"",
    "text": lambda _: b"<html>not found</html>",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_whatever_a_pickle_asks_for_it_is_refused_without_being_run(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 3, 4, 5):
        with pytest.raises(DataError, match=r"^batch: is damaged or no pickle of arrays"):
            read(attack(protocol))
    assert list(tmp_path.iterdir()) == []


def array_pickle_of(shape, content, number="u1"):
    """A pickle whose array announces what it likes."""
    numbers = b"".join(b"J" + struct.pack("<i", n) for n in shape)
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01(" + numbers + b"tcnumpy\ndtype\nU\x02" + number.encode() + b"K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(content))
        + content
        + b"tbs."
    )


def test_an_array_must_have_as_many_bytes_as_its_shape_says():
    assert same(
        read(array_pickle_of((2, 2), b"abcd"))["data"], np.frombuffer(b"abcd", "u1").reshape(2, 2)
    )
    for shape in ((2, 3), (1 << 30, 1 << 30), (-2, -2), (0,), (1,) * 9 + (4,), (-1,)):
        with pytest.raises(DataError, match="an array"):
            read(array_pickle_of(shape, b"abcd"))


def test_what_a_pickle_announces_costs_no_memory(tmp_path):
    tracemalloc.start()
    try:
        for name in ("bytes beyond the file", "text beyond the file", "a frame beyond the file"):
            (tmp_path / "batch").write_bytes(ATTACKS[name](4))
            with (tmp_path / "batch").open("rb") as file, pytest.raises(DataError):
                read_pickle(file, "batch")
        with pytest.raises(DataError):
            read(array_pickle_of((1 << 30, 1 << 30), b"abcd"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_pickle_of_too_many_instructions_is_refused(monkeypatch):
    monkeypatch.setattr(array_pickle, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(DataError, match="more than 1,000 instructions"):
        read(b"\x80\x02" + b"]" * 1001 + b".")


def test_every_truncation_of_a_pickle_is_refused():
    for content in (pickle.dumps(RECORD, 3), python2_pickle(RECORD)):
        for length in range(len(content)):
            with pytest.raises(DataError):
                read(content[:length])


def reads_or_refuses(content):
    with suppress(DataError):
        assert isinstance(read(content), dict)


VALID = [
    pickle.dumps(RECORD, 2),
    pickle.dumps(RECORD, 3),
    pickle.dumps(RECORD, 4),
    python2_pickle(RECORD),
]


@given(
    content=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), max_size=5),
)
@settings(max_examples=400)
def test_a_damaged_pickle_reads_or_is_refused(content, edits):
    for at, inserted in edits:
        at %= len(content)
        content = content[:at] + inserted + content[at + len(inserted) :]
    reads_or_refuses(content)


CODES = [o.code.encode("latin-1") for o in pickletools.opcodes]
PARTS = st.sampled_from(
    [
        *CODES,
        *(b"\x00", b"\x01", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"U\x02u1", b"K\x01"),
        *(b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n", b"}", b"]", b")"),
    ]
)


@given(parts=st.lists(PARTS, max_size=40))
@settings(max_examples=600)
def test_any_program_reads_or_is_refused(parts):
    reads_or_refuses(b"".join(parts) + b".")


# --- npz -------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_exactly(tmp_path, save):
    path = tmp_path / "a.npz"
    arrays = {
        "data": RECORD["data"],
        "mean": RECORD["mean"],
        "f": np.asfortranarray(RECORD["data"]),
    }
    save(path, **arrays, objects=np.array([None]))
    assert same(read_npz(path, list(arrays)), arrays)


def npy(header, content=b"abcd", version=b"\x01\x00"):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + content


def header(shape="(4,)", descr="'|u1'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


BAD_NPY = {
    "empty": b"",
    "text": b"<html>",
    "objects": npy(header(descr="'|O'")),
    "records": npy(header(descr="[('a', '|u1')]")),
    "text array": npy(header(descr="'|S4'")),
    "code": npy("__import__('os').system('touch harmed')"),
    "another version": npy(header(), version=b"\x09\x00"),
    "no shape": npy("{'descr': '|u1', 'fortran_order': False}"),
    "a shape of text": npy(header("('a',)")),
    "a negative shape": npy(header("(-4,)")),
    "two negatives": npy(header("(-2, -2)")),
    "a long header": npy(header() + " " * 20_000),
    "huge": npy(header("(1 << 60,)".replace("1 << 60", str(1 << 60)))),
    "large": npy(header("(1000000000,)")),
    "too short": npy(header("(5,)")),
    "too long": npy(header("(3,)")),
    "nested": npy("(" * 5000),
}


@pytest.mark.parametrize("content", BAD_NPY.values(), ids=BAD_NPY)
def test_a_damaged_npz_is_refused_and_costs_no_memory(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"{path}: is damaged or no npz file"):
            read_npz(path, ["data"])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == [path]


def test_an_npz_without_the_array_says_so(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(DataError, match="holds no array data and no labels"):
        read_npz(tmp_path / "a.npz", ["data", "labels"])


def test_every_truncation_of_an_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", data=RECORD["data"])
    content = (tmp_path / "a.npz").read_bytes()
    for length in range(len(content)):
        (tmp_path / "a.npz").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a\.npz"):
            read_npz(tmp_path / "a.npz", ["data"])


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=200)
def test_a_flipped_bit_of_an_npz_reads_the_same_or_is_refused(tmp_path_factory, at, bit):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=RECORD["data"])
    content = bytearray(buffer.getvalue())
    content[at % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(content)
    with suppress(DataError):
        assert same(read_npz(path, ["data"])["data"], RECORD["data"])


PACKINGS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "LZMA": zipfile.ZIP_LZMA,
}


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
def test_a_changed_byte_of_an_npz_reads_the_same_or_is_refused_however_packed(tmp_path, packing):
    array, held = io.BytesIO(), np.arange(50, dtype=np.uint8)
    np.save(array, held)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("data.npy", array.getvalue())
    content = path.read_bytes()
    for damaged in damages(content):
        path.write_bytes(damaged)
        with suppress(DataError):
            assert np.array_equal(read_npz(path, ["data"])["data"], held)


def test_memory_that_is_lacking_is_told_beside_damage(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", data=RECORD["data"])
    monkeypatch.setattr("zipfile.ZipFile.open", Mock(side_effect=MemoryError))
    with pytest.raises(DataError, match=r"a\.npz: there is no memory to unpack it; free some, or"):
        read_npz(tmp_path / "a.npz", ["data"])
