"""ImageNet downsampled to 32x32 (the paper's ImageNet-D), decoded once and then mapped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from boundnas.data.array_pickle import read_pickle
from boundnas.data.array_zip import read_npz
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.rows import PIXELS, SHAPE, labelled_rows
from boundnas.data.source import InMemory
from boundnas.engine.progress import Progress
from boundnas.errors import DataError
from boundnas.store.files import cannot_write, find_bytes, reading, sync_folder, write_text
from boundnas.typed import checked

PAGE = "https://image-net.org/download-images.php"
"""Where the set is published, as "downsampled image data"; needs an account."""

CACHE = "boundnas-cache"
"""Name of the folder of decoded images, beside the published files."""

CLASSES = 1000
_IMAGES = 1_281_167 + 50_000

_SPLITS = {
    "train": tuple(f"train_data_batch_{i}" for i in range(1, 11)),
    "val": ("val_data",),
}
_UNPACKED = ("", "Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")
_STATISTICS_IMAGES = 16_384


@checked
def imagenet_d(folder: Path | str, validation_fraction: float = 0.04, seed: int = 0) -> ImageData:
    """1,281,167 training and 50,000 test images of a thousand classes, 32x32 colour pixels.

    The published files cannot be read at any position, so the first call decodes them, one after
    another, into ``boundnas-cache`` beside them, 3,072 bytes an image. Later calls map that folder
    and read no more than the images asked for. It is made anew when a published file changed, and
    serves without them when they are gone. A process killed while making it leaves a folder that
    is never read and that the next call removes.

    Args:
        folder: Where ``train_data_batch_1`` to ``_10`` and ``val_data`` are, as ``.npz`` or as
            the pickle files without a suffix; also below the folders that unpacking makes.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``.
        seed: Draws the validation set, and the sample for mean and standard deviation.

    Raises:
        DataError: A file is missing or damaged, the cache cannot be written, or
            ``validation_fraction`` is out of range.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise DataError(f"ImageNet-D: {root} is no folder; {_how_to_get()}")
    with _one_at_a_time(root):
        published = _find(root)
        counts = _counts(root / CACHE, published)
        if counts is None:
            counts = _decode(root / CACHE, published)
    train, test = (_mapped(root / CACHE, split, counts[split]) for split in _SPLITS)
    return assemble(
        "imagenet_d",
        train,
        train.labels,
        test,
        tuple(str(label) for label in range(1, CLASSES + 1)),
        validation_fraction=validation_fraction,
        seed=seed,
        padding=4,
        flip=True,
        statistics_images=_STATISTICS_IMAGES,
    )


def _find(root: Path) -> dict[str, Path]:
    """The published files that are there, by their names without a suffix."""
    places = [root / name for name in _UNPACKED]
    return {
        name: path
        for names in _SPLITS.values()
        for name in names
        if (path := _first_file([p / (name + s) for p in places for s in (".npz", "")]))
    }


def _first_file(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if os.path.isfile(path)), None)


def _counts(cache: Path, published: dict[str, Path]) -> dict[str, int] | None:
    """Images per split in the cache; none if it is not whole or of other files than these."""
    try:
        made = json.loads(find_bytes(cache / "made_from.json", error=DataError) or b"")
        counts = {split: int(made["counts"][split]) for split in _SPLITS}
        sources = {name: made["files"][name] for names in _SPLITS.values() for name in names}
        sizes = [
            ((cache / f"{split}.{kind}").stat().st_size, counts[split] * width)
            for split in _SPLITS
            for kind, width in (("images", PIXELS), ("labels", 8))
        ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    unchanged = all(_stamp(path) == sources[name] for name, path in published.items())
    return counts if unchanged and all(size == wanted for size, wanted in sizes) else None


def _stamp(path: Path) -> list[int]:
    """What changes when a file does."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _decode(cache: Path, published: dict[str, Path]) -> dict[str, int]:
    """Make the cache, which gets its name when it is whole and on the disk; images per split."""
    missing = [name for names in _SPLITS.values() for name in names if name not in published]
    if missing:
        raise DataError(
            f"ImageNet-D: {len(missing)} of 11 files not found in {cache.parent}, neither with "
            f".npz nor without: {', '.join(missing)};\n{_how_to_get()}"
        )
    stamps = {name: _stamp(path) for name, path in published.items()}
    partial = cache.with_name(f".{cache.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed here
        partial.mkdir()
        with Progress(len(published), "decode", unit="file") as progress:
            counts = {
                split: _decode_split(partial, split, [published[n] for n in names], progress)
                for split, names in _SPLITS.items()
            }
        made = json.dumps({"counts": counts, "files": stamps})
        write_text(partial / "made_from.json", made)
        shutil.rmtree(cache, ignore_errors=True)
        partial.rename(cache)
        sync_folder(cache.parent)
        return counts
    except OSError as error:
        raise DataError(str(cannot_write(cache, _IMAGES * (PIXELS + 8), error))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decode_split(folder: Path, split: str, paths: Sequence[Path], progress: Progress) -> int:
    """Write the images and labels of some published files; the number of images."""
    count = 0
    with (
        (folder / f"{split}.images").open("xb") as pixels,
        (folder / f"{split}.labels").open("xb") as classes,
    ):
        for path in paths:
            images, labels = _read(path)
            pixels.write(images.numpy().data)
            classes.write(labels.numpy().data)
            count += len(labels)
            progress.advance()
        for file in (pixels, classes):
            file.flush()
            os.fsync(file.fileno())
    return count


def _read(path: Path) -> tuple[Tensor, Tensor]:
    if path.suffix == ".npz":
        record = read_npz(path, ("data", "labels"))
    else:
        with reading(path, None, error=DataError) as file:
            record = read_pickle(file, str(path))
    return labelled_rows(record, "labels", 1, CLASSES, str(path))


def _mapped(cache: Path, split: str, count: int) -> InMemory:
    """Images that the operating system reads when they are looked at."""
    images = torch.from_file(
        str(cache / f"{split}.images"), shared=False, size=count * PIXELS, dtype=torch.uint8
    )
    labels = torch.from_file(
        str(cache / f"{split}.labels"), shared=False, size=count, dtype=torch.int64
    )
    return InMemory(images.view(-1, *SHAPE), labels.clone())


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the other processes of a run wait while one decodes."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{folder}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _how_to_get() -> str:
    return (
        f"get the 32x32 training and validation files from {PAGE} (downsampled image data), "
        "unzip them, and name the folder they lie in"
    )
