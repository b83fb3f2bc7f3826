"""ImageNet and ImageNet-D: published forms, the cache of decoded images, random resized crops."""

import json
import math
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests import published
from tests.published import imagenet_d_batch, write_imagenet, write_imagenet_d

from boundnas import data
from boundnas.app.pipeline import run
from boundnas.config import read_config
from boundnas.data import (
    Decoding,
    ImageFiles,
    InMemory,
    Subset,
    augment,
    downsampled,
    imagenet_d,
    random_crops,
)
from boundnas.data.decode import crop_box, read_crop, read_image
from boundnas.errors import DataError
from boundnas.randomness import stream

CACHE = "boundnas-cache"


def load(folder):
    return imagenet_d(folder, validation_fraction=0.25)


# --- ImageNet-D ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [3, 4, "npz", "deflated"])
def test_every_published_form_of_imagenet_d_gives_the_same_images(tmp_path, form):
    write_imagenet_d(tmp_path, form)
    for _ in range(2):  # decoded, and read again
        found = load(tmp_path)
        whole, batches = found.train.source, [imagenet_d_batch(i) for i in range(10)]
        pixels = np.concatenate([batch["data"] for batch in batches])
        assert np.array_equal(whole.images.flatten(1).numpy(), pixels)
        assert whole.labels.tolist() == [label - 1 for b in batches for label in b["labels"]]
        assert np.array_equal(found.test.images.flatten(1).numpy(), imagenet_d_batch(10)["data"])
        assert [len(s) for s in (found.train, found.validation, found.test)] == [88, 32, 12]
        assert (found.shape, found.padding, found.flip) == ((3, 32, 32), 4, True)
        assert len(found.classes) == 1000


def test_the_folders_that_unpacking_makes_are_looked_into(tmp_path):
    write_imagenet_d(tmp_path / "Imagenet32_train", 3)
    (tmp_path / "Imagenet32_val").mkdir()
    (tmp_path / "Imagenet32_train" / "val_data").rename(tmp_path / "Imagenet32_val" / "val_data")
    assert len(load(tmp_path).test) == 12


def test_the_published_files_may_go_once_they_are_decoded(tmp_path):
    before = load(write_imagenet_d(tmp_path, 3))
    for path in tmp_path.glob("*_data*"):
        path.unlink()
    assert torch.equal(load(tmp_path).train.source.images, before.train.source.images)


def test_a_published_file_that_changed_is_decoded_again(tmp_path):
    load(write_imagenet_d(tmp_path, 3))
    (tmp_path / "val_data").write_bytes(pickle.dumps(imagenet_d_batch(99, 8), 3))
    assert np.array_equal(
        load(tmp_path).test.images.flatten(1).numpy(), imagenet_d_batch(99, 8)["data"]
    )


def cut_images(cache):
    os.truncate(cache / "train.images", 3072 * 3)


def add_labels(cache):
    with (cache / "val.labels").open("ab") as file:
        file.write(bytes(8))


def lie(cache):
    made = json.loads((cache / "made_from.json").read_text())
    (cache / "made_from.json").write_text(json.dumps({**made, "counts": {"train": 5, "val": 1}}))


DAMAGES = {
    "images cut": cut_images,
    "labels added": add_labels,
    "other counts": lie,
    "no record": lambda cache: (cache / "made_from.json").unlink(),
    "a torn record": lambda cache: (cache / "made_from.json").write_text('{"counts": {"tr'),
    "a record of a list": lambda cache: (cache / "made_from.json").write_text("[1]"),
    "a missing file": lambda cache: (cache / "val.images").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    before = load(write_imagenet_d(tmp_path, 3))
    images = before.train.source.images.clone()
    damage(tmp_path / CACHE)
    assert torch.equal(load(tmp_path).train.source.images, images)


def forked(child):
    """Run in a process of its own, which ends with 0 when it comes to its end."""
    process = os.fork()
    if process == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    return process


def exit_code(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dying_at(call, functions):
    """Make the process die right before or right after a call of one of the functions."""
    calls = 0

    def point():
        nonlocal calls
        calls += 1
        if calls == call:
            os._exit(9)

    def watched(function):
        def wrapper(*args, **options):
            point()
            result = function(*args, **options)
            point()
            return result

        return wrapper

    for place, name in functions:
        setattr(place, name, watched(getattr(place, name)))


def test_a_process_killed_while_decoding_leaves_nothing_that_is_believed(tmp_path):
    functions = [
        *((downsampled, "labelled_rows"), (downsampled, "write_text")),
        *((os, name) for name in ("fsync", "rename", "mkdir", "rmdir")),
    ]
    for call in range(1, 200):
        folder = write_imagenet_d(tmp_path / str(call), 3)

        def child(folder=folder, call=call):
            dying_at(call, functions)
            load(folder)

        code = exit_code(forked(child))
        names = {path.name for path in folder.iterdir()} - set(published.imagenet_d_names())
        assert names <= {CACHE, f".{CACHE}.partial"}
        found = load(folder)
        assert np.array_equal(found.test.images.flatten(1).numpy(), imagenet_d_batch(10)["data"])
        assert len(found.train) + len(found.validation) == 120
        assert not (folder / f".{CACHE}.partial").exists()
        if code == 0:
            break
        assert code == 9
        shutil.rmtree(folder)
    assert call > 30


def test_processes_that_start_together_decode_once(tmp_path):
    write_imagenet_d(tmp_path / "set", 3)
    log, read = tmp_path / "log", downsampled.labelled_rows

    def logged(*args):
        with log.open("a") as file:
            file.write("read\n")
        return read(*args)

    def child():
        downsampled.labelled_rows = logged
        load(tmp_path / "set")

    assert [exit_code(p) for p in [forked(child) for _ in range(3)]] == [0, 0, 0]
    assert log.read_text().count("read") == 11


def test_missing_files_of_imagenet_d_are_listed_with_page_and_place(tmp_path):
    write_imagenet_d(tmp_path, 3)
    (tmp_path / "train_data_batch_7").unlink()
    (tmp_path / "val_data").unlink()
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert f"2 of 11 files not found in {tmp_path}" in message
    assert ": train_data_batch_7, val_data;" in message
    assert "https://image-net.org/download-images.php" in message
    assert not (tmp_path / CACHE).exists()


def test_a_folder_that_is_not_there_is_answered_with_the_page(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is no folder; get .* from https://image-net"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [0] * 12}, "labels must lie in 1 to 1000, found 0 to 0"),
        ({"labels": [1001] * 12}, "labels must lie in 1 to 1000, found 1001"),
        ({"data": np.zeros((12, 12288), np.uint8)}, r"bytes of shape \(n, 3072\)"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_leaves_no_cache(tmp_path, batch, message):
    write_imagenet_d(tmp_path, 3)
    content = pickle.dumps({**imagenet_d_batch(3), **batch}, 3)
    (tmp_path / "train_data_batch_4").write_bytes(content)
    with pytest.raises(DataError, match=f"train_data_batch_4: .*{message}"):
        load(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(published.imagenet_d_names())


def test_a_disk_that_refuses_the_cache_is_answered_with_place_and_need(tmp_path, monkeypatch):
    write_imagenet_d(tmp_path, 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DataError, match=rf"{CACHE}: cannot be written \(No space.*; 4,099,994,360 bytes"
    ):
        load(tmp_path)
    assert not list(tmp_path.glob("*cache*"))
    assert not list(tmp_path.glob(".*"))


# --- ImageNet --------------------------------------------------------------------------------


def test_imagenet_tests_on_val_and_carves_validation_from_train(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "test").mkdir()  # published without labels, flat
    (tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"")
    found = data.imagenet(tmp_path, 24, validation_fraction=0.3)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [12, 6, 6]
    assert found.classes == ("n01440764", "n01443537", "n01484850")
    assert (found.shape, found.padding, found.flip, found.resized_crops) == (
        (3, 24, 24),
        0,
        True,
        True,
    )
    assert {path.parent.parent.name for path in found.test.paths} == {"val"}


def test_imagenet_is_looked_at_through_the_middle_seven_eighths(tmp_path):
    write_imagenet(tmp_path, size=(100, 64))
    found = data.imagenet(tmp_path, 28, validation_fraction=0.3)
    image = found.test.take(torch.tensor([0]))[0][0].permute(1, 2, 0).numpy()
    with Image.open(found.test.paths[0]) as whole:
        middle = whole.crop((50 - 28, 32 - 28, 50 + 28, 32 + 28))
        expected = np.asarray(middle.resize((28, 28), Image.Resampling.BICUBIC))
    # At its edges the filter sees pixels that a cut would have removed.
    assert np.abs(image.astype(int) - expected)[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize("missing", [["train"], ["val"], ["train", "val"]])
def test_a_missing_half_of_imagenet_is_named_with_its_page(tmp_path, missing):
    write_imagenet(tmp_path)
    for name in missing:
        shutil.rmtree(tmp_path / name)
    with pytest.raises(DataError, match=rf"(?s){missing[-1]} in .*https://image-net\.org"):
        data.imagenet(tmp_path, 24)


def test_a_flat_val_is_answered_with_what_to_do(tmp_path):
    write_imagenet(tmp_path)
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"val has no sub-folders; .* folder named after its class"):
        data.imagenet(tmp_path, 24)


# --- random resized crops --------------------------------------------------------------------


def draws(seed):
    return torch.rand(10, 4, generator=stream(seed, "draws"))


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), seed=st.integers(0, 2**31))
def test_a_crop_lies_inside_with_area_and_aspect_in_range(width, height, seed):
    left, top, right, bottom = crop_box(width, height, 0.08, draws(seed))
    slack = 1e-6 * max(width, height)
    assert left >= 0
    assert top >= 0
    assert right <= width + slack
    assert bottom <= height + slack
    assert 3 / 4 - 1e-6 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-6
    share = (right - left) * (bottom - top) / (width * height)
    square = min(width, height) / max(width, height)
    assert 0.08 - 1e-6 <= share <= 1 + 1e-6 or share == pytest.approx(square)


@pytest.mark.parametrize(("area", "share"), [(0.0, 0.08), (0.5, 0.54), (0.75, 0.77)])
def test_the_area_of_a_crop_is_uniform_from_eight_percent_to_all(area, share):
    one = torch.tensor([[area, 0.5, 0.0, 0.0]], dtype=torch.float64)  # a square, at the corner
    assert crop_box(100, 100, 0.08, one) == pytest.approx(
        (0, 0, 100 * share**0.5, 100 * share**0.5)
    )


def test_crops_cover_all_areas_and_places():
    boxes = [crop_box(100, 100, 0.08, draws(seed)) for seed in range(2000)]
    areas = [(right - left) * (bottom - top) / 1e4 for left, top, right, bottom in boxes]
    assert min(areas) < 0.1
    assert max(areas) > 0.9
    assert np.mean(areas) == pytest.approx(
        0.51, abs=0.03
    )  # a little less than 0.54: some do not fit
    lefts, rights = zip(*((left, right) for left, _, right, _ in boxes), strict=True)
    assert min(lefts) < 1
    assert max(rights) > 99
    assert np.mean(np.add(lefts, rights)) == pytest.approx(100, abs=2)


def test_a_panorama_is_cut_to_the_square_in_its_middle():
    assert crop_box(1000, 10, 0.08, draws(0)) == (495, 0, 505, 10)


def gradient(path, size=(400, 300), **options):
    """An image whose red tells the column and whose green tells the row."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(400, 300), (2400, 1800), (30, 40)])
def test_a_crop_shows_the_part_of_the_image_that_its_box_names(tmp_path, suffix, size):
    path = gradient(tmp_path / f"a{suffix}", size)
    for seed in range(4):
        left, top, right, bottom = crop_box(*size, 0.08, draws(seed))
        crop = read_crop(path, Decoding(16), 0.08, draws(seed)).astype(float)
        for axis, (low, high), side in ((1, (left, right), size[0]), (0, (top, bottom), size[1])):
            centres = low + (np.arange(16) + 0.5) / 16 * (high - low) - 0.5
            found = crop[..., 1 - axis].mean(1 - axis)
            wanted = np.clip(centres, 0, side - 1) / (side - 1) * 255
            assert np.abs(found - wanted)[1:-1].max() < 6


def test_a_photo_taken_sideways_is_turned_before_it_is_cut(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(gradient(tmp_path / "upright.png"))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    for seed in range(4):
        crops = [
            read_crop(tmp_path / n, Decoding(16), 0.08, draws(seed))
            for n in ("upright.png", "a.png")
        ]
        assert np.array_equal(*crops)


def files(tmp_path, count=8):
    paths = tuple(gradient(tmp_path / f"{i}.png", (40 + i, 30)) for i in range(count))
    return ImageFiles(paths, torch.arange(count), Decoding(12))


def test_random_crops_are_pure_in_the_generator_and_follow_the_indices(tmp_path):
    source = files(tmp_path)
    part = Subset(Subset(source, torch.tensor([7, 3, 5, 1])), torch.tensor([2, 0]))
    images, labels = random_crops(part, torch.tensor([1, 0, 1]), stream(0, "augment"), 0.08)
    assert labels.tolist() == [7, 5, 7]
    drawn = torch.rand(3, 10, 4, generator=stream(0, "augment"))
    for image, label, draw in zip(images, labels.tolist(), drawn, strict=True):
        expected = read_crop(source.paths[label], Decoding(12), 0.08, draw)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert not torch.equal(images[0], images[2])


def test_random_crops_do_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    source, results = files(tmp_path), []
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        results.append(random_crops(source, torch.arange(8), stream(0, "augment"), 0.08)[0])
    assert torch.equal(*results)


def test_random_crops_are_taken_of_files_only():
    memory = InMemory(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    with pytest.raises(DataError, match="of image files only, found InMemory"):
        random_crops(Subset(memory, torch.arange(2)), torch.arange(2), stream(0, "augment"), 0.08)


def test_training_images_are_cropped_then_mirrored_and_padded_ones_as_before(tmp_path):
    write_imagenet(tmp_path)
    found = data.imagenet(tmp_path, 16, validation_fraction=0.3)
    order = torch.tensor([3, 0, 1])
    generator = stream(0, "augment", 7)
    images, labels = random_crops(found.train, order, generator, 0.08)
    expected = augment(images, generator, 0, True)
    again = found.augmented(order, stream(0, "augment", 7))
    assert torch.equal(again[0], expected)
    assert torch.equal(again[1], labels)
    padded = replace(found, resized_crops=False, padding=2)
    images, _ = found.train.take(order)
    assert torch.equal(
        padded.augmented(order, stream(0, "augment", 7))[0],
        augment(images, stream(0, "augment", 7), 2, True),
    )


def test_the_middle_of_an_image_shrinks_with_its_share(tmp_path):
    path = gradient(tmp_path / "a.png", (300, 300))
    whole, half = (
        read_image(path, Decoding(10, fit="crop", centre=centre))[..., 0].mean(0)
        for centre in (1.0, 0.5)
    )
    assert math.isclose(half[-1] - half[0], (whole[-1] - whole[0]) / 2, rel_tol=0.05)


# --- from a configuration --------------------------------------------------------------------

RUN = """
name: small
data: {{set: {name}, folder: {folder}, validation_fraction: 0.3{size}}}
space:
  stem: {{width: [2, 4], stride: 2}}
  stages: [{{intermediate: [4, 8], output: [4, 8], stride: 2}}]
  last_width: 8
cost: {{lower: 0.001, upper: 0.1}}
train: {{steps: 2, batch_size: 4}}
search: {{initial: 2, rounds: 0, calibration_images: 4}}
export: {{formats: []}}
"""


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet_d", "imagenet"])
def test_a_configuration_trains_on_every_set_of_the_paper(tmp_path, name, monkeypatch):
    monkeypatch.setattr(downsampled, "CLASSES", 4)  # those that the few images are of
    folder = tmp_path / "set"
    match name:
        case "cifar10":
            published.write_files(folder, published.cifar10_python())
        case "cifar100":
            published.write_files(folder, published.cifar100_binary())
        case "imagenet_d":
            write_imagenet_d(folder, 3)
        case "imagenet":
            write_imagenet(folder)
    size = ", image_size: 24" if name == "imagenet" else ""
    (tmp_path / "run.yaml").write_text(RUN.format(name=name, folder=folder, size=size))
    _, front = run(read_config(tmp_path / "run.yaml"), tmp_path / "runs")
    assert front.networks
