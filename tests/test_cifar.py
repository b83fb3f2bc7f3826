"""CIFAR-10 and CIFAR-100: every published form gives the same images; what is amiss is named."""

import gzip
import io
import os
import tarfile
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tests import published
from tests.published import python2_pickle, rows, write_archive, write_files

from boundnas import data
from boundnas.errors import DataError

PAGE = r"https://www\.cs\.toronto\.edu/~kriz/cifar\.html"

SETS = {
    "cifar10": (
        data.cifar10,
        {"python": published.cifar10_python, "binary": published.cifar10_binary},
        published.CIFAR10_NAMES,
        (90, 10, 20),
    ),
    "cifar100": (
        data.cifar100,
        {"python": published.cifar100_python, "binary": published.cifar100_binary},
        published.CIFAR100_NAMES,
        (200, 100, 100),
    ),
}
FORMS = [
    pytest.param(name, version, packed, id=f"{name}-{version}-{'archive' if packed else 'folder'}")
    for name in SETS
    for version in ("python", "binary")
    for packed in (True, False)
]


def archive_name(name, version):
    return f"{name.replace('cifar', 'cifar-')}-{version}.tar.gz"


@pytest.mark.parametrize(("name", "version", "packed"), FORMS)
def test_every_published_form_gives_the_same_images(tmp_path, name, version, packed):
    load, versions, names, sizes = SETS[name]
    files = versions[version]()
    if packed:
        write_archive(tmp_path / archive_name(name, version), files)
    else:
        write_files(tmp_path, files)
    found = load(tmp_path, validation_fraction=0.1)
    assert found.classes == tuple(names)
    assert (found.name, found.shape, found.padding, found.flip) == (name, (3, 32, 32), 4, True)
    assert [len(s) for s in (found.train, found.validation, found.test)] == list(sizes)
    batches = 5 if name == "cifar10" else 1
    count = (sizes[0] + sizes[1]) // batches
    images = np.concatenate([rows(count, len(names), i)[0] for i in range(batches)])
    whole = found.train.source
    assert np.array_equal(whole.images.flatten(1).numpy(), images)
    assert whole.labels.tolist() == rows(count, len(names))[1] * batches
    pixels, labels = rows(sizes[2], len(names), batches)
    assert np.array_equal(found.test.images.flatten(1).numpy(), pixels)
    assert found.test.labels.tolist() == labels


def test_the_folder_may_be_the_unpacked_one_itself(tmp_path):
    write_files(tmp_path, published.cifar10_python())
    inside = data.cifar10(tmp_path / "cifar-10-batches-py")
    assert torch.equal(inside.test.images, data.cifar10(str(tmp_path)).test.images)


def test_red_comes_first_and_rows_from_the_top(tmp_path):
    files = published.cifar10_binary()
    image = np.zeros((3, 32, 32), np.uint8)
    image[0, 0] = 200  # the top row is red
    files["cifar-10-batches-bin/test_batch.bin"] = b"\x03" + image.tobytes()
    found = data.cifar10(write_files(tmp_path, files))
    assert torch.equal(found.test.images[0], torch.from_numpy(image))
    assert found.test.labels.tolist() == [3]


@pytest.mark.parametrize("name", SETS)
def test_a_missing_archive_is_named_with_its_page_and_place(tmp_path, name):
    python, binary = (archive_name(name, version) for version in ("python", "binary"))
    with pytest.raises(
        DataError, match=rf"neither {python} nor {binary} is in {tmp_path}.*\nGet .* from {PAGE}"
    ):
        SETS[name][0](tmp_path)


def test_a_file_missing_from_the_folder_is_named(tmp_path):
    write_files(tmp_path, published.cifar10_python())
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match=rf"(?s)1 of 7 files not found in .*: data_batch_3.*{PAGE}"):
        data.cifar10(tmp_path)


def test_a_file_missing_from_the_archive_is_named(tmp_path):
    files = published.cifar100_python()
    del files["cifar-100-python/test"]
    write_archive(tmp_path / "cifar-100-python.tar.gz", files)
    with pytest.raises(DataError, match=rf"lacks test of cifar-100-python/.*{PAGE}"):
        data.cifar100(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, length):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, published.cifar10_python())
    path.write_bytes(path.read_bytes()[:5000] if length == -1 else path.read_bytes()[:length])
    with pytest.raises(DataError, match=f"{path}: (damaged archive|cannot be read|lacks)"):
        data.cifar10(tmp_path)


def member(kind, content, name="cifar-10-batches-py/data_batch_1", size=None, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for offset, field in fields.items():
        header[int(offset[1:]) : int(offset[1:]) + len(field)] = field
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    return bytes(header) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def extended(**records):
    """An extended header with these records, before a file."""
    content = b""
    for key, value in records.items():
        record = f" {key.replace('_', '.')}={value}\n"
        length = len(record) + 1
        while length != len(f"{length}{record}"):
            length += 1
        content += f"{length}{record}".encode()
    return member(b"x", content) + member(b"0", b"abc")


BAD_HEADERS = {
    "a sparse map of letters": extended(GNU_sparse_map="a,b"),
    "a sparse size of letters": extended(GNU_sparse_size="x"),
    "a sparse size of 5,000 digits": extended(GNU_sparse_size="9" * 5000),
    "a sparse map that is not there": extended(GNU_sparse_major="1", GNU_sparse_minor="0"),
    "a size of letters": extended(size="x"),
    "a size below 0": extended(size="-1"),
    "a size beyond everything": extended(size="9" * 30),
    "3,000 extended headers": member(b"x", b"10 ab=cde\n") * 3000,
    "3,000 long names": member(b"L", b"a" * 10) * 3000,
    "a long name of 8 GB": member(b"L", b"", size=(1 << 33) - 1),
    "an old sparse file": member(b"S", b"", x386=b"\x80" + b"\xff" * 11, x482=b"\1"),
    "a number with its sign bit": member(b"0", b"abc", x124=b"\x80" + b"\xff" * 11),
}


@pytest.mark.parametrize("content", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_that_cannot_be_is_a_damaged_archive(tmp_path, content):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1024), 1))
    with pytest.raises(DataError, match=f"{path}: (damaged archive|cannot be read|lacks)"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file"])
@pytest.mark.parametrize("load", ["cifar10", "cifar100", "fashion_mnist", "imagenet_d"])
def test_a_place_that_is_no_folder_holds_no_files(tmp_path, name, load):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"is in|not found in|is no folder"):
        getattr(data, load)(str(tmp_path / name))
    with pytest.raises(DataError, match="no folder train and no folder val in"):
        data.imagenet(str(tmp_path / name), 8)


@pytest.mark.parametrize("load", ["cifar10", "fashion_mnist"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, load):
    for name in ("cifar-10-python.tar.gz", "train-images-idx3-ubyte"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"is in|not found in"):
        getattr(data, load)(tmp_path)


def test_memory_that_is_lacking_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    monkeypatch.setattr("tarfile.open", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError, match=r"tar\.gz cannot be unpacked"):
        data.cifar10(tmp_path)


def test_an_archive_writes_nothing_and_its_links_lead_nowhere(tmp_path):
    (tmp_path / "outside").write_bytes(published.cifar10_python()["cifar-10-batches-py/test_batch"])
    files = published.cifar10_python()
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in {**files, "../harmed": b"x", "/harmed": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name.endswith("test_batch"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "../outside", 0
            archive.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="lacks test_batch"):
        data.cifar10(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def batch(**changes):
    pixels, labels = rows(20, 10)
    return {"data": pixels, "labels": labels, **changes}


BAD_BATCHES = {
    "no labels": ({"data": rows(20, 10)[0]}, "'data' and 'labels', found 'data'; it is another"),
    "fine labels": (batch(labels=list(range(1, 21))), "0 to 9, found 1 to 20"),
    "a negative label": (batch(labels=[-1] * 20), "0 to 9, found -1"),
    "too few labels": (batch(labels=[1] * 19), "20 whole numbers, one an image"),
    "labels that are text": (batch(labels=["1"] * 20), "20 whole numbers"),
    "labels that are truths": (batch(labels=[True] * 20), "20 whole numbers"),
    "labels that are no list": (batch(labels=3), "20 whole numbers"),
    "larger images": (batch(data=np.zeros((20, 12288), np.uint8)), r"bytes of shape \(n, 3072\)"),
    "images as numbers": (batch(data=rows(20, 10)[0].astype("f4")), "bytes of shape"),
    "signed bytes": (batch(data=rows(20, 10)[0].astype("i1")), "bytes of shape"),
    "images as text": (batch(data="x" * 3072), "bytes of shape"),
    "no images": (batch(data=np.zeros((0, 3072), np.uint8), labels=[]), "holds no images"),
}


@pytest.mark.parametrize(("record", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_batch_that_does_not_fit_is_named(tmp_path, record, message):
    files = published.cifar10_python()
    files["cifar-10-batches-py/data_batch_2"] = python2_pickle(record)
    write_files(tmp_path, files)
    with pytest.raises(DataError, match=f"cifar-10-batches-py: data_batch_2: .*{message}"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 3072, 3073 * 20 - 1, 3073 * 20 + 1])
def test_a_binary_file_must_be_whole_rows(tmp_path, size):
    files = published.cifar10_binary()
    files["cifar-10-batches-bin/data_batch_4.bin"] = bytes(size)
    write_files(tmp_path, files)
    with pytest.raises(
        DataError, match=f"data_batch_4.bin: must be rows of 3,073 .*{size:,} bytes"
    ):
        data.cifar10(tmp_path)


def test_a_file_larger_than_any_of_cifar_is_refused_by_its_size(tmp_path):
    write_files(tmp_path, published.cifar10_binary())
    os.truncate(tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin", 2**28 + 1)
    with pytest.raises(DataError, match=r"data_batch_2.bin: .*268,435,457 .*268,435,456"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("names", [["a"] * 9, [1] * 10, "abc", None])
def test_class_names_must_be_as_many_as_the_classes(tmp_path, names):
    files = published.cifar10_python()
    files["cifar-10-batches-py/batches.meta"] = python2_pickle({"label_names": names})
    write_files(tmp_path, files)
    with pytest.raises(DataError, match=r"batches\.meta: must (name 10 classes|hold a list)"):
        data.cifar10(tmp_path)
