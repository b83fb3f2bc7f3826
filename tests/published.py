"""Small files in exactly the formats that data sets are published in."""

import io
import pickle
import struct
import tarfile
from typing import ClassVar

import numpy as np
from PIL import Image


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's cPickle wrote at protocol 2, where text is bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        data = value.encode("latin-1") if isinstance(value, str) else value
        short = len(data) < 256
        self.write(b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_text


def python2_pickle(value):
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(value)
    # Where numpy had the function until 2.0.
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def rows(count, classes, seed=0):
    """Random images as rows of bytes, and labels that go through all classes in turn."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), np.uint8), [i % classes for i in range(count)]


CIFAR10_NAMES = [f"thing{i}" for i in range(10)]
CIFAR100_NAMES = [f"class{i:02}" for i in range(100)]


def cifar10_python(count=20):
    """The files of ``cifar-10-python.tar.gz``, with ``count`` images in each batch."""
    files = {
        "batches.meta": python2_pickle(
            {"num_cases_per_batch": count, "label_names": CIFAR10_NAMES, "num_vis": 3072}
        )
    }
    for i, name in enumerate([*(f"data_batch_{b}" for b in range(1, 6)), "test_batch"]):
        data, labels = rows(count, 10, i)
        files[name] = python2_pickle(
            {
                "batch_label": f"batch {i}",
                "labels": labels,
                "data": data,
                "filenames": [f"{j}.png" for j in range(count)],
            }
        )
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def cifar10_binary(count=20):
    """The same images in the files of ``cifar-10-binary.tar.gz``."""
    files = {"batches.meta.txt": ("\n".join(CIFAR10_NAMES) + "\n\n").encode()}
    for i, name in enumerate([*(f"data_batch_{b}" for b in range(1, 6)), "test_batch"]):
        data, labels = rows(count, 10, i)
        files[f"{name}.bin"] = np.column_stack([np.array(labels, np.uint8), data]).tobytes()
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def cifar100_python(count=300):
    """The files of ``cifar-100-python.tar.gz``, with ``count`` training images."""
    files = {
        "meta": python2_pickle(
            {"fine_label_names": CIFAR100_NAMES, "coarse_label_names": ["a", "b", "c"]}
        )
    }
    for i, (name, n) in enumerate((("train", count), ("test", count // 3))):
        data, labels = rows(n, 100, i)
        files[name] = python2_pickle(
            {
                "filenames": [f"{j}.png" for j in range(n)],
                "batch_label": f"{name} batch 1 of 1",
                "fine_labels": labels,
                "coarse_labels": [label // 5 for label in labels],
                "data": data,
            }
        )
    return {f"cifar-100-python/{name}": content for name, content in files.items()}


def cifar100_binary(count=300):
    """The same images in the files of ``cifar-100-binary.tar.gz``."""
    files = {
        "coarse_label_names.txt": b"a\nb\nc\n",
        "fine_label_names.txt": ("\n".join(CIFAR100_NAMES) + "\n").encode(),
    }
    for i, (name, n) in enumerate((("train", count), ("test", count // 3))):
        data, labels = rows(n, 100, i)
        fine = np.array(labels, np.uint8)
        files[f"{name}.bin"] = np.column_stack([fine // 5, fine, data]).tobytes()
    return {f"cifar-100-binary/{name}": content for name, content in files.items()}


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.parent


def imagenet_d_names():
    return [*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"]


def imagenet_d_batch(i, count=12, classes=4):
    """What the ``i``-th published file holds: labels count from 1."""
    data, labels = rows(count, classes, i)
    mean = np.full(3072, 120.5)
    return {"data": data, "labels": [label + 1 for label in labels], "mean": mean}


def write_imagenet_d(folder, form, count=12):
    """The eleven files as pickles of Python 3 (``3`` or ``4``), ``npz`` or deflated ``npz``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(imagenet_d_names()):
        batch = imagenet_d_batch(i, count)
        if form in (3, 4):
            (folder / name).write_bytes(pickle.dumps(batch, form))
        else:
            save = np.savez if form == "npz" else np.savez_compressed
            save(folder / name, **{**batch, "labels": np.array(batch["labels"])})
    return folder


def write_imagenet(folder, count=6, size=(60, 40)):
    """``train`` and ``val`` with three classes of JPEG files of noise."""
    random = np.random.default_rng(0)
    for split, n in (("train", count), ("val", 2)):
        for wnid in ("n01440764", "n01443537", "n01484850"):
            for i in range(n):
                path = folder / split / wnid / f"{wnid}_{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
                Image.fromarray(pixels).resize(size).save(path, quality=90)
    return folder
