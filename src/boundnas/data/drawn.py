"""Samples of a Dataset, each with random numbers of its own, read in this process or in others.

What a sample is depends on the Dataset, the name of a draw and its index, and on nothing else: not
on what was read before it, by whom, or with how many worker processes.
"""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from boundnas.errors import DataError
from boundnas.nested import Inputs, described, leaves, mapped, structure
from boundnas.store.folder import leave_locks
from boundnas.supernet.place import first_line

Key = tuple[str, int]
"""Name of a draw, and index of the sample in its Dataset."""

Batch = tuple[Inputs, Tensor]
"""Inputs and targets of some samples, each with the batch axis first."""


@dataclass(frozen=True)
class Failed:
    """What is wrong with a sample; an error of its own would lose its form between processes."""

    message: str


@dataclass(frozen=True)
class Drawn:
    """A Dataset of (input, target), read by keys.

    Args:
        dataset: Map-style: ``len(dataset)``, ``dataset[i]``.
        name: Of data set and split, for messages.
    """

    dataset: Any
    name: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Inputs, Tensor] | Failed:
        try:
            return self.sample(*key)
        except DataError as error:
            return Failed(str(error))

    def sample(self, draw: str, index: int) -> tuple[Inputs, Tensor]:
        """One sample, after all global generators were seeded for it; they are not put back.

        Raises:
            DataError: Reading it fails, or it is no pair of an input and a target.
        """
        where = f"{self.name}: sample {index}"
        _seed(f"{draw}/{index}")
        try:
            found = self.dataset[index]
        except MemoryError:
            raise
        except Exception as error:  # whatever a user's Dataset may raise
            raise DataError(f"{where}: reading it fails, {first_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise DataError(
                f"{where}: a sample is a pair of an input and a target, found {_kind(found)}"
                f"{_likely(self.dataset)}"
            )
        inputs = mapped(lambda x: _as_input(x, where), _row(found[0]))
        return inputs, _as_target(found[1], where)


def read(
    samples: Any, keys: Iterable[Sequence[Key]], workers: int, collate: Any = None
) -> Generator[Any, None, None]:
    """Batches of samples; with worker processes, two of them for each are read ahead.

    Args:
        samples: A `Drawn`, or what has its ``__getitem__``.
        keys: Of each batch.
        workers: Processes that read; 0 reads here.
        collate: What makes a batch of samples, by default `stacked`.

    Raises:
        DataError: What is wrong with a sample.
    """
    collate = collate or stacked
    if not workers:
        for batch in keys:
            with apart():
                found = collate([samples[key] for key in batch])
            yield _whole(found)
        return
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=keys,  # type: ignore[arg-type]  # any iterable of keys
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # else it draws from the global one
    )
    found = iter(loader)
    while True:
        try:
            batch = next(found)
        except StopIteration:
            return
        except RuntimeError as error:
            if "worker" not in str(error):
                raise
            raise DataError(
                f"a process that reads samples ended by itself ({first_line(error)}); it may have "
                "been out of memory, or the Dataset ends it; give workers=0 to see"
            ) from error
        yield _whole(batch)


def stacked(samples: Sequence[tuple[Inputs, Tensor] | Failed]) -> Batch | Failed:
    """Samples as one batch."""
    pairs: list[tuple[Inputs, Tensor]] = []
    for sample in samples:
        if isinstance(sample, Failed):
            return sample
        pairs.append(sample)
    first = pairs[0]
    for other in pairs:
        if _form(other) != _form(first):
            return Failed(
                "samples of one batch have inputs and targets of one shape and type, found "
                f"{described(first[0])} with {described(first[1])}, and {described(other[0])} "
                f"with {described(other[1])}; resize, crop or pad them in a transform"
            )
    inputs = mapped(lambda *parts: torch.stack(parts), *(x for x, _ in pairs))
    return inputs, torch.stack([y for _, y in pairs])


@contextmanager
def apart() -> Iterator[None]:
    """Within it samples may be drawn; then all global generators are as they were."""
    if get_worker_info() is not None:  # nobody else draws there
        yield
        return
    with _ONE_AT_A_TIME:
        python, numpy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_rng_state(torchs)


_ONE_AT_A_TIME = RLock()


def _seed(text: str) -> None:
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    random.seed(text)
    np.random.seed(words)
    torch.default_generator.manual_seed(int.from_bytes(words[:2].tobytes(), "big") >> 1)


def _begin(_: int) -> None:
    """The process that reads from this one ends it, after it has saved its work.

    Where that is killed, this one notices within seconds, and must not keep its folder meanwhile.
    """
    leave_locks()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _whole(found: Any) -> Any:
    if isinstance(found, Failed):
        raise DataError(found.message)
    return found


def _form(sample: tuple[Inputs, Tensor]) -> object:
    inputs, target = sample
    shapes = [(x.shape, x.dtype) for _, x in leaves(inputs)]
    return structure(inputs), shapes, target.shape, target.dtype


def _as_input(x: Any, where: str) -> Tensor:
    if isinstance(x, Tensor | np.ndarray | np.generic | bool | int | float):
        found = _tensor(x)
        if found.dtype == torch.uint8:
            raise DataError(
                f"{where}: its input is uint8, as pixels are; scale it to float32 in a transform, "
                "as torchvision.transforms.v2.ToDtype(torch.float32, scale=True) does"
            )
        return _plain(found, where, "input")
    raise DataError(
        f"{where}: an input is made of tensors and arrays, found {_kind(x)}; let a transform make "
        "a tensor of it, such as torchvision.transforms.v2.ToImage() of an image"
    )


def _as_target(y: Any, where: str) -> Tensor:
    if isinstance(y, Tensor | np.ndarray | np.generic | bool | int | float):
        return _plain(_tensor(y), where, "target")
    if isinstance(y := _row(y), Tensor):
        return _plain(y, where, "target")
    raise DataError(
        f"{where}: a target is a number, a tensor or an array, found {_kind(y)}; give a class by "
        "its number"
    )


def _row(x: Any) -> Any:
    """A list of numbers is a tensor of them."""
    numbers = isinstance(x, list) and x and all(isinstance(n, bool | int | float) for n in x)
    return torch.tensor(x) if numbers else x


def _likely(dataset: Any) -> str:
    """What may help where samples are no pairs."""
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        return "; all inputs and all targets become samples by torch.utils.data.TensorDataset"
    return ""


def _tensor(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        found = x.detach()
        return found if type(found) is Tensor else found.as_subclass(Tensor)
    return torch.from_numpy(np.array(x))


def _plain(x: Tensor, where: str, what: str) -> Tensor:
    """As float32, int64 or bool on the CPU."""
    odd = x.is_complex() or x.is_quantized or x.is_nested or x.layout != torch.strided
    if odd or x.device.type != "cpu":
        how = f" ({x.layout})" if x.layout != torch.strided else ""
        raise DataError(f"{where}: its {what} is {x.dtype}{how} on {x.device}; give plain numbers")
    if x.is_floating_point():
        return x.to(torch.float32)
    return x if x.dtype == torch.bool else x.to(torch.int64)


def _kind(x: object) -> str:
    length = f" of {len(x)}" if isinstance(x, tuple | list | dict) else ""
    return f"a {type(x).__name__}{length}"
