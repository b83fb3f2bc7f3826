"""Batches that are read ahead are those that are read when they are asked for."""

import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image

from boundnas.data import ImageFiles, InMemory, Subset, TrainingOrder, image_folder
from boundnas.data.ahead import BATCHES, ahead
from boundnas.data.decoding import Decoding
from boundnas.data.source import are_files
from boundnas.errors import DataError


def reading(number, read, broken=None):
    for i in range(number):
        if i == broken:
            raise DataError(f"batch {i} cannot be read")
        read.append((i, threading.current_thread().name))
        yield i


def test_batches_come_in_their_order_and_no_more_than_a_few_are_read_before():
    read, used = [], []
    for i in ahead(reading(9, read)):
        used.append(i)
        assert len(read) <= i + 1 + BATCHES
    assert used == [i for i, _ in read] == list(range(9))
    assert not any(name == threading.current_thread().name for _, name in read)


def test_an_error_comes_where_its_batch_would():
    batches = ahead(reading(9, [], broken=3))
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="batch 3 cannot be read"):
        next(batches)


def test_a_reader_that_is_closed_reads_no_more():
    before, read = threading.active_count(), []
    batches = ahead(reading(99, read))
    assert next(batches) == 0
    batches.close()
    number = len(read)
    assert threading.active_count() == before
    assert number <= 1 + BATCHES
    assert len(read) == number


@pytest.fixture
def files(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for kind in ("one", "two"):
        for i in range(12):
            place = tmp_path / kind / f"{i}.png"
            place.parent.mkdir(exist_ok=True)
            pixels = torch.randint(256, (9, 9, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place)
    return image_folder(tmp_path, image_size=8, seed=0)


def test_images_of_files_are_the_same_bytes_read_ahead_or_from_memory(files):
    assert are_files(files.train)
    images, labels = files.train.take(torch.arange(len(files.train)))
    held = replace(files, train=InMemory(images.contiguous(), labels))
    assert not are_files(held.train)
    order = TrainingOrder(len(files.train), 4, seed=1)
    for first, last, part in ((0, 7, slice(0, 4)), (3, 7, slice(2, 4))):
        pairs = zip(files.training(order, first, last, part),
                    held.training(order, first, last, part), strict=True)  # fmt: skip
        for (a, x), (b, y) in pairs:
            assert torch.equal(a, b)
            assert torch.equal(x, y)


def test_what_lies_in_memory_or_is_a_users_own_is_read_where_it_is_used():
    labels = torch.tensor([0, 1, 0, 1])
    paths = [f"{i}.png" for i in range(4)]
    of_files = ImageFiles(paths, labels, Decoding(4))
    assert are_files(Subset(Subset(of_files, torch.arange(3)), torch.arange(2)))
    in_memory = InMemory(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels)
    assert not are_files(Subset(in_memory, torch.arange(2)))
    assert not are_files(object())
