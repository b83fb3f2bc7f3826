"""Laws of the data package: sources, splits, augmentation, order, and every loader's refusals."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image_files import everything, fill, png, same
from torch import nn

from boundnas import data
from boundnas.data import (
    Decoding,
    ImageData,
    ImageFiles,
    InMemory,
    Subset,
    TrainingOrder,
    augment,
    batches,
    carve,
    channel_statistics,
    normalize,
    training_batch,
)
from boundnas.data.fashion import DEBIAN_FOLDER
from boundnas.data.idx import read_idx
from boundnas.data.source import labels_of
from boundnas.data.split import split_by_name, stratified
from boundnas.errors import DataError
from boundnas.randomness import stream


def in_memory(n, shape=(1, 4, 4), classes=3, seed=0):
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=stream(seed, "images"))
    return InMemory(images, torch.arange(n) % classes)


# --- sources ---------------------------------------------------------------------------------


def sources(tmp_path):
    files = tuple(png(tmp_path / f"{i}.png", (i * 20, 0, 255 - i)) for i in range(7))
    memory = in_memory(9)
    yield memory
    yield Subset(memory, torch.tensor([8, 1, 1, 5]))
    yield Subset(Subset(memory, torch.tensor([8, 1, 1, 5])), torch.tensor([3, 0]))
    yield ImageFiles(files, torch.arange(7), Decoding(6))
    yield ImageFiles(files, torch.arange(7), Decoding(6, channels=1))


def test_every_source_takes_any_indices_in_their_order_one_by_one_or_together(tmp_path):
    for source in sources(tmp_path):
        order = torch.randint(len(source), (12,), generator=stream(0, "order"))
        images, labels = source.take(order)
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert labels.dtype == torch.int64
        assert labels.shape == (12,)
        for i in range(12):
            image, label = source.take(order[i : i + 1])
            assert torch.equal(image[0], images[i])
            assert torch.equal(label[0], labels[i])
        assert len(source.take(order[:0])[0]) == 0


@given(n=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_batches_give_the_order_once_and_only_the_last_is_short(n, batch_size, seed):
    source = InMemory(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n))
    order = torch.randperm(n, generator=stream(seed, "order"))
    found = [labels for _, labels in batches(source, order, batch_size)]
    assert torch.equal(torch.cat(found), order)
    assert all(len(labels) == batch_size for labels in found[:-1])


def test_no_images_give_no_batches():
    assert list(batches(in_memory(3), torch.arange(0), 2)) == []


BYTES, LABELS = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
PHOTOS = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
ONE_HOT = torch.eye(4, dtype=torch.int64)
BAD_SOURCES = {
    "images from 0 to 1": (
        lambda: InMemory(BYTES.float() + 1, LABELS),
        r"uint8.*found float32 of shape .*from 1 to 1; pass \(images \* 255\).round\(\).to",
    ),
    "float images": (
        lambda: InMemory(BYTES.double() + 255, LABELS),
        r"found float64 .*from 255 to 255; pass images.round\(\).to\(torch.uint8\)",
    ),
    "normalized images": (
        lambda: InMemory(BYTES.half() - 2, LABELS),
        "from -2 to -2; images are normalized here, so pass their brightness from 0 to 255",
    ),
    "images without a value": (lambda: InMemory(BYTES / 0, LABELS), "not all .* are finite"),
    "whole numbers": (lambda: InMemory(BYTES.int(), LABELS), r"int32 .*images.to\(torch.uint8\)"),
    "truths": (lambda: InMemory(BYTES > 0, LABELS), r"found bool"),
    "no channel axis": (
        lambda: InMemory(BYTES[:, 0], LABELS),
        r"found uint8 of shape \(4, 2, 2\): of grey images, add the channel: images\[:, None\]",
    ),
    "channels last": (
        lambda: InMemory(PHOTOS, LABELS),
        r"found uint8 of shape \(4, 8, 8, 3\): the channels come last; pass images.permute\(0, 3,",
    ),
    "grey, channels last": (lambda: InMemory(PHOTOS[..., :1], LABELS), "channels come last"),
    "small, channels last": (lambda: InMemory(PHOTOS[:, :4, :4], LABELS), "channels come last"),
    "oblong, channels last": (lambda: InMemory(PHOTOS[:, :, :5], LABELS), "channels come last"),
    "images without pixels": (lambda: InMemory(BYTES[..., :0], LABELS), "an image has no pixels"),
    "videos": (lambda: InMemory(BYTES[None], LABELS), "number of dimensions is another"),
    "a list of images": (lambda: InMemory(list(BYTES), LABELS), r"list; join them by torch.stack"),
    "images on no device": (
        lambda: InMemory(BYTES.to("meta"), LABELS),
        "on the CPU .*found one",
    ),
    "texts": (
        lambda: InMemory(np.full((4, 1, 2, 2), "a"), LABELS),
        "numpy array of numbers",
    ),
    "float labels": (
        lambda: InMemory(BYTES, LABELS.float()),
        r"found float32 of shape \(4,\): .* pass labels.long\(\)",
    ),
    "truths for labels": (lambda: InMemory(BYTES, LABELS == 0), "found bool"),
    "one-hot labels": (lambda: InMemory(BYTES, ONE_HOT), r"one-hot, pass labels.argmax\(1\)"),
    "scores for labels": (lambda: InMemory(BYTES, ONE_HOT.float()), r"pass labels.argmax\(1\)"),
    "a column of labels": (lambda: InMemory(BYTES, LABELS[:, None]), r"pass labels.flatten\(\)"),
    "a label too few": (
        lambda: InMemory(BYTES, LABELS[1:]),
        r"found int64 of shape \(3,\): there are 4 images",
    ),
    "a single label": (lambda: InMemory(BYTES, torch.tensor(0)), r"found int64 of shape \(\)"),
    "ragged labels": (lambda: InMemory(BYTES, [[1], [1, 2]]), "labels must be a dense tensor"),
    "negative label": (lambda: InMemory(BYTES, LABELS - 1), r"0 or more, found -1"),
    "index past the end": (lambda: Subset(in_memory(4), torch.tensor([1, 4])), r"0 to 3, found 1"),
    "negative index": (lambda: Subset(in_memory(4), [-1]), r"0 to 3, found -1 to -1"),
    "float indices": (lambda: Subset(in_memory(4), torch.zeros(2)), r"int64.*found float32"),
    "truths for indices": (
        lambda: Subset(in_memory(4), LABELS == 0),
        r"found bool of shape \(4,\); of truths, pass indices.nonzero\(\)\[:, 0\]",
    ),
    "taken past the end": (lambda: in_memory(4).take(torch.tensor([4])), "0 to 3, found 4"),
    "taken before the start": (
        lambda: Subset(in_memory(4), [1]).take(torch.tensor([-1])),
        "0 to 0, found -1",
    ),
    "files before the start": (
        lambda: ImageFiles(("a.png",), [0], Decoding(8)).take(torch.tensor([-1])),
        "0 to 0, found -1",
    ),
    "one path for all": (
        lambda: ImageFiles("a.png", [0], Decoding(8)),
        "list of files, found one: a.png",
    ),
    "size zero": (lambda: Decoding(0), "at least 1 pixel, found 0"),
    "size in words": (lambda: Decoding("8"), "at least 1 pixel, found '8'"),
    "two channels": (lambda: Decoding(8, 2), r"1 \(grey\) or 3 \(RGB\), found 2"),
    "another fit": (lambda: Decoding(8, fit="cut"), "resize, pad or crop, found 'cut'"),
    "another background": (
        lambda: Decoding(8, background="red"),
        "white, black or grey, found 'red'",
    ),
    "no centre": (lambda: Decoding(8, centre=0.0), "above 0 and at most 1, found 0.0"),
    "batch of none": (lambda: next(batches(in_memory(4), LABELS, 0)), r"at least 1, found 0"),
}


@pytest.mark.parametrize(("build", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_cannot_be_says_what_it_found(build, message):
    with pytest.raises(DataError, match=message):
        build()


WHOLE = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("kind", WHOLE)
def test_arrays_lists_and_labels_of_any_whole_type_mean_what_tensors_do(tmp_path, kind):
    memory = in_memory(9)
    labels = memory.labels.numpy().astype(kind)
    frozen = memory.images.numpy()[:]
    frozen.flags.writeable = False
    for images, classes in (
        (memory.images.numpy(), labels),
        (frozen, labels[::-1][::-1]),
        (memory.images.numpy(), torch.from_numpy(labels)),
        (memory.images, labels.tolist()),
    ):
        source = InMemory(images, classes)
        assert torch.equal(source.images, memory.images)
        assert torch.equal(source.labels, memory.labels)
        assert source.labels.dtype == torch.int64
        part = Subset(source, np.array([2, 8], kind))
        assert torch.equal(part.take(torch.tensor([1]))[0], memory.images[8:])
        assert labels_of(Subset(part, [1, 0])).tolist() == [2, 2]
    path = png(tmp_path / "a.png")
    assert len(ImageFiles([str(path)], labels[:1], Decoding(8)).take(torch.tensor([0]))[0]) == 1


# --- splits ----------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_a_stratified_split_is_a_partition_with_every_class_on_both_sides(counts, fraction, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=stream(seed, "shuffle"))]
    rest, taken = stratified(labels, fraction, stream(seed, "split"))
    assert torch.equal(torch.cat([rest, taken]).sort().values, torch.arange(len(labels)))
    assert torch.equal(rest, rest.sort().values)
    assert torch.equal(taken, taken.sort().values)
    for c, count in enumerate(counts):
        share = int((labels[taken] == c).sum())
        assert 1 <= share <= count - 1
        assert abs(share - count * fraction) <= 1


@given(
    counts=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    fraction=st.sampled_from([0.001, 0.2, 0.5, 0.999]),
    draw=st.integers(0, 99),
)
def test_a_split_by_name_is_a_partition_with_every_class_on_both_sides(counts, fraction, draw):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    names = [f"{label}/{i}" for i, label in enumerate(labels.tolist())]
    rest, taken = split_by_name(names, labels, fraction, str(draw))
    assert torch.equal(torch.cat([rest, taken]).sort().values, torch.arange(len(labels)))
    assert set(labels[rest].tolist()) == set(labels[taken].tolist()) == set(range(len(counts)))


def test_the_share_of_a_split_by_name_is_about_the_fraction():
    labels = torch.zeros(5000, dtype=torch.int64)
    _, taken = split_by_name([str(i) for i in range(5000)], labels, 0.2, "test_split")
    assert abs(len(taken) - 1000) < 85  # three deviations of a binomial count


def test_carving_depends_on_the_seed_alone():
    train = in_memory(60)
    first, again, other = (carve(train, train.labels, 0.2, seed) for seed in (3, 3, 4))
    assert torch.equal(first[0].indices, again[0].indices)
    assert torch.equal(first[1].indices, again[1].indices)
    assert not torch.equal(first[1].indices, other[1].indices)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(DataError, match="between 0 and 1, found"):
        stratified(torch.zeros(9, dtype=torch.int64), fraction, stream(0, "split"))


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(DataError, match="label 2 has 1 image"):
        stratified(torch.tensor([0, 0, 2]), 0.5, stream(0, "split"))


def test_nothing_cannot_be_split():
    with pytest.raises(DataError, match="no images"):
        stratified(torch.tensor([], dtype=torch.int64), 0.5, stream(0, "split"))


# --- statistics and ImageData ----------------------------------------------------------------


@given(
    n=st.integers(1, 600),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    low=st.integers(0, 254),
)
@settings(max_examples=30)
def test_channel_statistics_are_those_of_numpy_and_ignore_order(n, channels, seed, low):
    generator = stream(seed, "images")
    images = torch.randint(low, 256, (n, channels, 2, 3), dtype=torch.uint8, generator=generator)
    source = InMemory(images, torch.zeros(n, dtype=torch.int64))
    mean, std = channel_statistics(source)
    exact = images.double().numpy() / 255
    assert mean == pytest.approx(exact.mean((0, 2, 3)))
    assert std == pytest.approx(np.maximum(exact.std((0, 2, 3)), 1 / 255))
    shuffled = Subset(source, torch.randperm(n, generator=generator))
    assert channel_statistics(shuffled) == (mean, std)


def test_a_constant_channel_gets_a_deviation_that_can_be_divided_by():
    mean, std = channel_statistics(InMemory(torch.full_like(BYTES, 51), LABELS))
    assert mean == (0.2,)
    assert std == (1 / 255,)


def build(**changes):
    source = in_memory(6)
    fields = {
        "name": "toy",
        "train": source,
        "validation": source,
        "test": source,
        "classes": ("a", "b", "c"),
        "shape": (1, 4, 4),
        "mean": (0.5,),
        "std": (0.2,),
        "padding": 1,
        "flip": False,
    }
    return ImageData(**{**fields, **changes})


class Given:
    """A source of a user's own, which only has images and labels to take."""

    def __init__(self, labels, count=6):
        self.labels_to_give, self.count = torch.as_tensor(labels), count

    def __len__(self):
        return self.count

    def take(self, indices):
        images = torch.zeros(len(indices), 1, 4, 4, dtype=torch.uint8)
        return images, self.labels_to_give[indices]


def labelled(*labels):
    return InMemory(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels)


BAD_DATA = {
    "empty test": (
        {"test": Subset(in_memory(6), torch.arange(0))},
        r"toy: test has no images",
    ),
    "other shape": (
        {"validation": in_memory(6, (3, 4, 4))},
        r"toy: validation .*\(1, 1, 4, 4\), found uint8 of shape \(1, 3, 4, 4\)",
    ),
    "float labels": (
        {"train": Given([0.0] * 6)},
        r"toy: train .* label as int64.*found float32",
    ),
    "a label past the end in an own source": (
        {"test": Given([0, 1, 2, 0, 1, 3])},
        "toy: test: labels must lie in 0 to 2 for 3 classes, found 0 to 3",
    ),
    **{
        f"labels from 1 in {split}": (
            {split: labelled(1, 2, 3, 1, 2, 3)},
            f"toy: {split}: labels must lie in 0 to 2 .*found 1 to 3; these count from 1, pass lab",
        )
        for split in ("train", "validation", "test")
    },
    "labels far off": ({"test": labelled(7, 9)}, r"found 7 to 9$"),
    "a class that is not trained": (
        {"train": labelled(0, 1, 0)},
        "toy: validation has images of 1 classes that no training image is of: c; add",
    ),
    "classes in no order": ({"classes": {"a", "b", "c"}}, "the order of the labels, found the set"),
    "a class twice": ({"classes": ("a", "b", "a")}, "there is more than one 'a'"),
    "a class twice, spelt otherwise": (
        {"classes": ("\u00e9", "b", "e\u0301")},
        "there is more than one 'é'",
    ),
    "a number for a class": ({"classes": (0, 1, 2)}, "class 0: 0 is a int where text is needed"),
    "one class": ({"classes": ("a",)}, "at least 2 classes, found a"),
    "no class": ({"classes": ()}, "at least 2 classes, found none"),
    "a blank class": ({"classes": ("a", " ", "")}, "(?s)2 of 3 .*class 1: ' ' is blank.*class 2"),
    "a class of two lines": ({"classes": ("a", "b\nc", "d")}, r"1 of 3 .*\n  class 1: 'b\\nc' has"),
    "half a character": ({"classes": ("a", "\udce9", "d")}, r"class 1: '\\udce9' has"),
    "a name of two lines": ({"name": "a\n| 99 %"}, r"'a\\n\| 99 %' has characters"),
    "two means": ({"mean": (0.5, 0.5)}, r"1 numbers each"),
    "std of zero": ({"std": (0.0,)}, r"above 0; found"),
    "a mean without value": ({"mean": (math.nan,)}, r"found mean \(nan,\)"),
    "a std without value": ({"std": (math.nan,)}, r"std \(nan,\)"),
    "negative padding": ({"padding": -1}, "0 or more and below 4, the side .*, found -1"),
    "padding out of sight": ({"padding": 4}, "0 or more and below 4, the side .*, found 4"),
    "crops of nothing": ({"smallest_crop": 0.0}, "above 0 and at most 1, .*, found 0.0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_image_data_that_does_not_fit_together_is_refused(changes, message):
    build()
    with pytest.raises(DataError, match=message):
        build(**changes)


def test_splits_other_than_training_may_lack_classes():
    found = build(validation=labelled(0, 1), test=labelled(2))
    assert [min(found.counts[split]) for split in ("train", "validation", "test")] == [2, 0, 0]
    build(train=labelled(0, 2), validation=labelled(0), test=labelled(2))


def assembled(train=None, train_labels=None, test=None, classes=("a", "b", "c"), **options):
    train = in_memory(12) if train is None else train
    labels = labels_of(train) if train_labels is None else train_labels
    options = options or {"validation_fraction": 0.5}
    return data.assemble(
        "toy", train, labels, test or train, classes, seed=0, padding=0, flip=False, **options
    )


BAD_ASSEMBLIES = {
    "a label without a class": ({"classes": ("a", "b")}, "toy: train: labels must lie in 0 to 1"),
    "labels from 1": (
        {"train": labelled(*[1, 2, 3] * 4)},
        "toy: train: labels must lie in 0 to 2 .*; these count from 1, pass labels - 1",
    ),
    "labels from 1 in the test": ({"test": labelled(1, 2, 3)}, "toy: test: labels .* count from 1"),
    "labels of other images": (
        {"train_labels": (torch.arange(12) + 1) % 3},
        "train_labels are not the labels that the training images have",
    ),
    "labels too few": ({"train_labels": [0, 1]}, "there are 12 images"),
    "letters for classes": ({"classes": "abc"}, "tuple of names, in .*, found the text 'abc'"),
    "classes in no order": ({"classes": {"a", "b", "c"}}, "the order of the labels, found the set"),
    "numbers of classes": (
        {"classes": {"c": 2, "a": 0, "b": 1}},
        "classes must be a tuple of names, in the order of the labels, found the dict {'c': 2",
    ),
    "no images": ({"train": in_memory(12), "train_labels": []}, "float|there are 12 images"),
    "nothing to train on": (
        {"train": Subset(in_memory(3), []), "validation": in_memory(3)},
        "toy: train has no images",
    ),
    "neither validation nor share": ({"validation_fraction": None}, "give either validation"),
    "both validation and share": (
        {"validation_fraction": 0.5, "validation": in_memory(3)},
        "give either validation images or the validation_fraction",
    ),
    "a share in words": ({"validation_fraction": "0.5"}, "between 0 and 1, found '?0.5"),
    "a share of all": ({"validation_fraction": 1}, "between 0 and 1, found 1"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ASSEMBLIES.values(), ids=BAD_ASSEMBLIES)
def test_parts_that_do_not_fit_are_not_put_together(changes, message):
    with pytest.raises(DataError, match=message):
        assembled(**changes)


def test_classes_may_be_a_list_and_validation_be_given():
    validation = in_memory(4, seed=1)
    found = assembled(classes=["a", "b", "c"], validation=validation)
    assert found.classes == ("a", "b", "c")
    assert found.validation is validation
    assert len(found.train) == 12


def test_mean_and_std_see_neither_validation_nor_test():
    source = in_memory(40)
    toy = data.assemble(
        "toy",
        source,
        source.labels,
        in_memory(5, seed=9),
        ("a", "b", "c"),
        validation_fraction=0.5,
        seed=1,
        padding=0,
        flip=False,
    )
    assert (toy.mean, toy.std) == channel_statistics(toy.train)


# --- augmentation ----------------------------------------------------------------------------


def augmented_slowly(images, generator, padding, flip):
    """What ``augment`` promises, one image at a time."""
    n, _, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (n, 2), generator=generator).tolist()
    coins = torch.rand(n, generator=generator).tolist() if flip else [1.0] * n
    results = []
    for image, (y, x), coin in zip(images, offsets, coins, strict=True):
        padded = torch.nn.functional.pad(image, (padding,) * 4)
        crop = padded[:, y : y + height, x : x + width]
        results.append(crop.flip(2) if coin < 0.5 else crop)
    return torch.stack(results)


@given(
    n=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_augment_crops_and_mirrors_each_image_as_the_slow_reference(
    n, channels, height, width, padding, flip, channels_last, seed
):
    images = in_memory(n, (channels, height, width), seed=seed).images
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    found = augment(images, stream(seed, "augment"), padding, flip)
    assert found.dtype == torch.uint8
    assert torch.equal(found, augmented_slowly(images, stream(seed, "augment"), padding, flip))
    assert torch.equal(images, before)


def test_augment_leaves_the_images_alone_without_padding_and_flip():
    images = in_memory(5).images
    assert torch.equal(augment(images, stream(0, "augment"), 0, False), images)


def test_augment_reaches_every_offset_and_both_mirrors():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    found = augment(image.expand(2000, -1, -1, -1), stream(0, "augment"), 1, True)
    assert len(found.flatten(1).unique(dim=0)) == 9 * 2


def test_normalize_is_channels_last_float32_with_mean_0_and_deviation_1():
    source = in_memory(50, (3, 6, 5))
    images = source.images
    values = normalize(images, *channel_statistics(source))
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert values.mean((0, 2, 3)) == pytest.approx(torch.zeros(3), abs=1e-5)
    assert values.std((0, 2, 3), correction=0) == pytest.approx(torch.ones(3), abs=1e-5)
    assert torch.equal(images, in_memory(50, (3, 6, 5)).images)


def test_maps_of_grey_images_stay_channels_last_too():
    values = normalize(torch.zeros(4, 1, 6, 6, dtype=torch.uint8), [0.5], [0.25])
    features = nn.functional.conv2d(values, torch.zeros(8, 1, 3, 3), padding=1)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert not features.is_contiguous()


# --- training order --------------------------------------------------------------------------


@given(length=st.integers(1, 50), seed=st.integers(0, 2**31), part=st.floats(0, 1))
def test_an_epoch_sees_no_image_twice_and_drops_only_the_tail(length, seed, part):
    batch_size = max(1, round(part * length))
    order = TrainingOrder(length, batch_size, seed)
    for epoch in range(2):
        first = epoch * order.steps_per_epoch
        seen = torch.cat([order.indices(first + i) for i in range(order.steps_per_epoch)])
        assert len(seen) == length - length % batch_size
        assert len(seen.unique()) == len(seen)
        whole = torch.randperm(length, generator=stream(seed, "shuffle", epoch))
        assert torch.equal(seen, whole[: len(seen)])


def test_a_training_batch_depends_on_seed_and_step_alone():
    source = in_memory(23)
    forward = [training_batch(source, 5, step, 4) for step in range(14)]
    for step in (13, 0, 7, 5, 6):
        images, labels = training_batch(source, 5, step, 4)
        assert torch.equal(images, forward[step][0])
        assert torch.equal(labels, forward[step][1])
    assert not torch.equal(forward[0][0], training_batch(source, 6, 0, 4)[0])


def test_a_caller_that_writes_into_its_indices_changes_no_later_batch():
    order = TrainingOrder(10, 5, 0)
    before = order.indices(0).clone()
    order.indices(0).zero_()
    assert torch.equal(order.indices(0), before)


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_does_not_fit_the_training_set_names_both_numbers(batch_size):
    with pytest.raises(DataError, match=rf"1 to 23, .*found {batch_size}"):
        training_batch(in_memory(23), 0, 0, batch_size)


# --- digits ----------------------------------------------------------------------------------


def test_digits_have_disjoint_splits_that_make_up_the_whole_set():
    digits = data.digits()
    sizes = [len(s) for s in (digits.train, digits.validation, digits.test)]
    assert sum(sizes) == 1797
    assert sizes[2] == pytest.approx(0.2 * 1797, abs=5)
    assert sizes[1] == pytest.approx(0.2 * (1797 - sizes[2]), abs=5)
    images = torch.cat([everything(s)[0] for s in (digits.train, digits.validation, digits.test)])
    assert len(images.flatten(1).unique(dim=0)) == 1797
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert (digits.shape, digits.padding, digits.flip) == ((1, 8, 8), 1, False)


def test_the_seed_moves_the_validation_set_of_digits_but_not_the_test_set():
    zero, again, one = data.digits(seed=0), data.digits(seed=0), data.digits(seed=1)
    assert same(zero, again)
    assert same(zero, one, ["test"])
    assert not torch.equal(everything(zero.validation)[0], everything(one.validation)[0])


# --- Fashion-MNIST and idx files -------------------------------------------------------------

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def idx(array, dtype=8):
    header = bytes([0, 0, dtype, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion(folder, zipped=True):
    random = np.random.default_rng(0)
    for kind, n in (("train", 60), ("t10k", 20)):
        images, labels = random.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        for name, array in ((f"{kind}-images-idx3", images), (f"{kind}-labels-idx1", labels)):
            content = idx(array)
            if zipped:
                (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{name}-ubyte").write_bytes(content)
    return folder


def test_fashion_files_read_the_same_gzipped_or_not(tmp_path):
    folders = [tmp_path / "zipped", tmp_path / "plain"]
    for folder in folders:
        folder.mkdir()
    zipped = data.fashion_mnist(write_fashion(folders[0]))
    plain = data.fashion_mnist(str(write_fashion(folders[1], zipped=False)))
    assert same(zipped, plain)
    assert [len(s) for s in (plain.train, plain.validation, plain.test)] == [50, 10, 20]
    assert everything(plain.test)[1].tolist() == [i % 10 for i in range(20)]
    assert (plain.shape, plain.flip, len(plain.classes)) == ((1, 28, 28), True, 10)


def test_missing_fashion_files_are_listed_with_the_place_and_both_remedies(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").unlink()
    (tmp_path / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(DataError) as caught:
        data.fashion_mnist(tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"Fashion-MNIST: 2 of 4 files not found in {tmp_path}, neither plain nor with .gz: "
        f"{NAMES[1]}, {NAMES[2]}."
    )
    assert "apt-get install dataset-fashion-mnist" in message
    assert all(name in message.splitlines()[1] for name in NAMES)


def test_a_missing_fashion_folder_is_answered_like_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"4 of 4 files not found in .*nowhere"):
        data.fashion_mnist(tmp_path / "nowhere")


IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
GOOD = idx(IMAGES)
BAD_IDX = {
    "empty": (b"", "found nothing"),
    "text": (b"<html>not found</html>", "must start with 00 00 08 03, found 3c 68 74 6d"),
    "floats": (idx(IMAGES, dtype=13), "found 00 00 0d 03"),
    "labels": (idx(np.arange(3)), "found 00 00 08 01"),
    "header cut": (GOOD[:11], "ends within the header, after 11 bytes"),
    "other size": (idx(np.zeros((3, 32, 32))), r"\(n, 28, 28\).*says \(3, 32, 32\)"),
    "no images": (idx(np.zeros((0, 28, 28))), r"n from 1 to \d+, the header says \(0, 28, 28\)"),
    "huge": (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], r"says \(4294967295, 28, 28\)"),
    "huge items": (GOOD[:8] + b"\xff" * 8 + GOOD[16:], r"says \(3, 4294967295, 4294967295\)"),
    "one byte short": (GOOD[:-1], r"announces 2352 bytes .* found only 2351"),
    "no data": (GOOD[:16], r"announces 2352 bytes .* found only 0"),
    "one byte more": (GOOD + b"\0", r"announces 2352 bytes .* found more"),
    "gzip of text": (gzip.compress(b"hello"), "found 68 65 6c 6c"),
    "gzip of a short file": (gzip.compress(GOOD[:-1]), "found only 2351"),
    "gzip of a long file": (gzip.compress(GOOD + b"\0" * 100), "found more"),
    "gzip bomb": (gzip.compress(GOOD + b"\0" * 50_000_000, 1), "found more"),
    "gzip cut short": (gzip.compress(GOOD)[:-20], "cut short"),
    "gzip with a wrong checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged gzip"),
    "gzip garbage": (gzip.compress(GOOD)[:10] + b"\xff" * 40, "damaged gzip"),
    "gzip magic alone": (b"\x1f\x8b", "cut short"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_damaged_idx_file_is_named_with_what_was_found(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s){path}: .*({message})"):
        read_idx(path, (28, 28))


@pytest.mark.parametrize("content", [GOOD, gzip.compress(GOOD)], ids=["plain", "gzip"])
def test_an_idx_file_is_read_exactly_and_every_truncation_is_refused(tmp_path, content):
    path = tmp_path / "images"
    path.write_bytes(content)
    assert np.array_equal(read_idx(path, (28, 28)).numpy(), IMAGES)
    for length in [*range(40), *range(40, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=str(path)):
            read_idx(path, (28, 28))


def test_an_idx_header_that_lies_costs_no_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "images"
    n = (1 << 28) // 784
    path.write_bytes(GOOD[:4] + struct.pack(">I", n) + GOOD[8:])
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="found only 2352"):
            read_idx(path, (28, 28))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_an_idx_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: is a folder, where a regular file"):
        read_idx(tmp_path, ())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(61) % 10, "61 labels for the 60 images"),
        (np.arange(60) % 11, "0 to 9, found 10"),
    ],
)
def test_fashion_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    write_fashion(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match=f"{NAMES[1]}.*{message}"):
        data.fashion_mnist(tmp_path)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs the Fashion-MNIST files")
def test_the_real_fashion_mnist_has_its_known_statistics():
    fashion = data.load("fashion_mnist")
    assert [len(s) for s in (fashion.train, fashion.validation, fashion.test)] == [
        54_000,
        6_000,
        10_000,
    ]
    assert fashion.mean == pytest.approx((0.2860,), abs=1e-3)
    assert fashion.std == pytest.approx((0.3530,), abs=1e-3)
    assert everything(fashion.validation)[1].bincount().tolist() == [600] * 10
    assert everything(fashion.test)[1].bincount().tolist() == [1000] * 10


# --- names -----------------------------------------------------------------------------------


def test_load_gives_what_the_loader_gives(tmp_path):
    fill(tmp_path, {"cat": 6, "dog": 6})
    assert same(data.load("digits", seed=2), data.digits(seed=2))
    assert same(
        data.load("folder", folder=tmp_path, image_size=8, validation_fraction=0.5),
        data.image_folder(tmp_path, 8, validation_fraction=0.5),
    )


BAD_LOADS = {
    "misspelt": (("fashon_mnist",), {}, "'fashon_mnist'; did you mean 'fashion_mnist'"),
    "unheard of": (("xyz",), {}, "'xyz'; there are digits, fashion_mnist, cifar10"),
    "a folder of digits": (("digits", "/x"), {}, "given but not taken: folder"),
    "resized clothes": (("fashion_mnist",), {"image_size": 8}, "given but not taken: image_size"),
    "nothing about the folder": (("folder",), {}, "needed but not given: folder, image_size"),
    "no image size": (("folder", "/x"), {}, "needed but not given: image_size"),
}


@pytest.mark.parametrize(("args", "options", "message"), BAD_LOADS.values(), ids=BAD_LOADS)
def test_load_refuses_what_a_data_set_does_not_take(args, options, message):
    with pytest.raises(DataError, match=message):
        data.load(*args, **options)
