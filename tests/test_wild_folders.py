"""Image folders as they are in the wild, by every setting that says what is done about them."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.image_files import cut, everything, fill, noise, paths_of, png, same

from boundnas import data
from boundnas.app import pipeline
from boundnas.config import read_config
from boundnas.data import random_crops
from boundnas.errors import BoundNASError, DataError
from boundnas.randomness import stream


def load(folder, size=8, **options):
    return data.load("folder", folder, size, 0.3, **options)


def pixels_of(found, name):
    """The image of a file, in whatever split it is."""
    for split in (found.train, found.validation, found.test):
        for i, path in enumerate(paths_of(split)):
            if path.name == name:
                return split.take(torch.tensor([i]))[0][0]
    raise AssertionError(name)


# --- how images become pixels ----------------------------------------------------------------


def mixed(tmp_path):
    """Colour, grey and transparent images that are no squares."""
    fill(tmp_path, {"cat": 4, "dog": 4})
    png(tmp_path / "cat" / "colour.png", (200, 10, 10), (24, 8))
    Image.new("L", (24, 8), 70).save(tmp_path / "cat" / "grey.png")
    Image.new("RGBA", (24, 8), (0, 0, 200, 0)).save(tmp_path / "dog" / "clear.png")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "colour", "grey", "clear"),
    [
        ({}, (200, 10, 10), (70,) * 3, (255,) * 3),
        ({"channels": 1}, (67,), (70,), (255,)),
        ({"background": "black"}, (200, 10, 10), (70,) * 3, (0,) * 3),
        ({"background": "grey", "channels": 1}, (67,), (70,), (128,)),
    ],
)
def test_grey_and_colour_images_are_read_as_the_run_has_them(
    tmp_path, options, colour, grey, clear
):
    found = load(mixed(tmp_path), **options)
    assert found.shape == (len(colour), 8, 8)
    for name, expected in (("colour", colour), ("grey", grey), ("clear", clear)):
        image = pixels_of(found, f"{name}.png").permute(1, 2, 0).numpy()
        assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("fit", "borders", "line"),
    [
        (
            "resize",
            0,
            "{n} of 11 images are no squares and have the ratio of their sides changed by 1.20 "
            "(median; 3.00 at most); fit: pad keeps it",
        ),
        (
            "crop",
            0,
            "{n} of 11 images are no squares and lose 17% of their area at the sides (median; "
            "67% at most); fit: pad or resize keeps all of them",
        ),
        ("pad", 5, None),
    ],
)
def test_what_is_no_square_is_made_one_as_set_and_a_line_says_what_that_does(
    tmp_path, fit, borders, line, caplog
):
    found = load(mixed(tmp_path), fit=fit)
    image = pixels_of(found, "colour.png").permute(1, 2, 0).numpy().astype(int)
    assert (np.abs(image - (200, 10, 10)).max((1, 2)) > 1).sum() == borders
    lines = [f"{tmp_path}: {line.format(n=11)}"] if line else []
    assert caplog.messages == lines


def test_squares_need_no_line(tmp_path, caplog):
    for name in ("cat", "dog"):
        for i in range(3):
            png(tmp_path / name / f"{i}.png", (len(name), ord(name[0]), i), size=(9, 9))
    load(tmp_path)
    assert not caplog.messages


def test_all_of_an_image_is_kept_unless_asked(tmp_path):
    fill(tmp_path, {"cat": 3, "dog": 3})
    pixels = np.zeros((8, 32, 3), np.uint8)
    pixels[:, :8], pixels[:, -8:] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "cat" / "wide.png")
    kept = {
        fit: bool((pixels_of(load(tmp_path, **fit), "wide.png") > 200).any())
        for fit in map(Options, ({}, {"fit": "pad", "background": "black"}, {"fit": "crop"}))
    }
    assert list(kept.values()) == [True, True, False]


class Options(dict):
    """Options as a key."""

    __hash__ = object.__hash__


# --- damaged images --------------------------------------------------------------------------


def damaged(folder):
    fill(folder, {"cat": 12, "dog": 12})
    for name in ("cat/004.png", "dog/007.png", "dog/011.png"):
        cut(folder / name)
    return folder


def test_damaged_images_are_left_out_where_asked_and_listed(tmp_path, caplog):
    found = load(damaged(tmp_path / "with"), damaged="skip")
    (line,) = (message for message in caplog.messages if "left out" in message)
    first, *rest = line.splitlines()
    assert first == "3 of 24 images cannot be used and are left out:"
    assert [text.strip().split(": ")[0] for text in rest] == [
        str(tmp_path / "with" / name) for name in ("cat/004.png", "dog/007.png", "dog/011.png")
    ]
    fill(tmp_path / "without", {"cat": 12, "dog": 12})
    for name in ("cat/004.png", "dog/007.png", "dog/011.png"):
        (tmp_path / "without" / name).unlink()
    assert same(found, load(tmp_path / "without"))


def test_damaged_images_are_refused_unless_asked(tmp_path):
    with pytest.raises(DataError, match=r"3 of 24 images cannot be used; .*set damaged to skip"):
        load(damaged(tmp_path))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "no"), MemoryError()],
)
def test_what_the_machine_lacks_leaves_no_image_out(error, tmp_path, monkeypatch):
    fill(tmp_path, {"cat": 12, "dog": 12})
    opened = Image.open

    def fails(path, *args, **kwargs):
        if path.name == "004.png":
            raise error
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(type(error), match="004.png" if isinstance(error, MemoryError) else None):
        load(tmp_path, damaged="skip")


def test_a_class_of_too_few_images_without_the_damaged_ones_is_refused(tmp_path):
    fill(tmp_path, {"cat": 3, "dog": 3})
    cut(tmp_path / "dog" / "001.png")
    with pytest.raises(DataError, match=r"at least 3 images .*; dog has 2: add images to these"):
        load(tmp_path, damaged="skip")


def test_a_damaged_image_of_a_given_split_is_left_out_of_it(tmp_path):
    for split in ("train", "val", "test"):
        fill(tmp_path / split, {"cat": 3, "dog": 3})
        cut(tmp_path / split / "cat" / "000.png")
    found = load(tmp_path, damaged="skip")
    assert [len(s) for s in (found.train, found.validation, found.test)] == [5, 5, 5]
    assert not any(p.match("cat/000.png") for p in paths_of(found.train))


RUN = """
name: small
data: {{set: folder, folder: {folder}, image_size: 16, validation_fraction: 0.3, damaged: skip}}
space:
  stem: {{width: [2, 4], stride: 2}}
  stages: [{{intermediate: [4, 8], output: [4, 8], stride: 2}}]
  last_width: 8
cost: {{lower: 0.0001, upper: 0.1}}
train: {{steps: 2, batch_size: 4}}
search: {{initial: 2, rounds: 0, calibration_images: 4}}
export: {{formats: [pt2]}}
"""


def test_a_run_goes_on_without_the_same_damaged_images_only(tmp_path, capsys):
    folder = damaged(tmp_path / "pets")
    (tmp_path / "run.yaml").write_text(RUN.format(folder=folder))
    config = read_config(tmp_path / "run.yaml")
    fronts = []
    for _ in range(2):
        held, front = pipeline.run(config, tmp_path / "runs")
        fronts.append(front.to_json())
        assert f"\n{load(folder, 16, damaged='skip')}\n" in f"\n{capsys.readouterr().err}"
    assert fronts[0] == fronts[1]
    (card,) = list(held.networks.rglob("card.md"))[:1]
    assert "Image files are first turned as their EXIF" in card.read_text()
    for name in ("cat/004.png", "dog/011.png"):
        png(folder / name)  # mended
    with pytest.raises(BoundNASError, match=r"is of a run with .*of data\.train"):
        pipeline.run(config, tmp_path / "runs")


def test_imagenet_takes_links_and_leaves_damaged_images_out_where_asked(tmp_path):
    for split in ("train", "val"):
        fill(tmp_path / "away" / split, {"n1": 4, "n2": 4}, ".JPEG")
    cut(tmp_path / "away" / "train" / "n1" / "000.JPEG")
    (tmp_path / "root").mkdir()
    for split in ("train", "val"):
        (tmp_path / "root" / split).symlink_to(tmp_path / "away" / split)
    options = {"links": "follow", "damaged": "skip"}
    found = data.load("imagenet", tmp_path / "root", 24, 0.3, **options)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [5, 2, 8]


# --- copies ----------------------------------------------------------------------------------


def own_splits(folder):
    for c, split in enumerate(("train", "val", "test")):
        for name in ("cat", "dog"):
            for i in range(4):
                png(folder / split / name / f"{i}.png", (c, ord(name[0]), i))
    return folder


COPIES = {
    "none": ([], []),
    "an image of training": ([("train/cat/1.png", "train/cat/new.png")], []),
    "of validation and test": ([("val/cat/1.png", "test/cat/new.png")], []),
    "one that is validated": (
        [("train/cat/1.png", "val/cat/new.png")],
        ["1 of 9 validation images are training images too, byte for byte, such as "
         "val/cat/new.png of train/cat/1.png; what is measured on them is no validation"],
    ),
    "two that are tested, one as another class": (
        [("train/cat/1.png", "test/dog/b.png"), ("train/dog/3.png", "test/dog/a.gif")],
        ["2 of 10 test images are training images too, byte for byte, such as "
         "test/dog/a.gif of train/dog/3.png; what is measured on them is no test"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("copies", "lines"), COPIES.values(), ids=COPIES)
def test_images_that_two_splits_share_are_told(copies, lines, tmp_path, caplog):
    own_splits(tmp_path)
    for old, new in copies:
        (tmp_path / new).write_bytes((tmp_path / old).read_bytes())
    load(tmp_path)
    said = [message for message in caplog.messages if "no squares" not in message]
    assert said == [f"{tmp_path}: {line}" for line in lines]


def test_copies_that_a_split_by_name_parts_are_told(tmp_path, caplog):
    fill(tmp_path, {"cat": 12, "dog": 12})
    for path in sorted(tmp_path.rglob("*.png")):
        (path.parent / f"copy of {path.name}").write_bytes(path.read_bytes())
    found = load(tmp_path)
    trained = {path.read_bytes() for path in paths_of(found.train)}
    for split in ("validation", "test"):
        paths = paths_of(getattr(found, split))
        number = sum(path.read_bytes() in trained for path in paths)
        said = f"{number} of {len(paths)} {split} images are training images too"
        assert number
        assert sum(said in message for message in caplog.messages) == 1


def test_a_hidden_folder_that_holds_images_is_told(tmp_path, caplog):
    fill(tmp_path, {"java": 4, "perl": 4, ".net": 4})
    for name in (".git", ".net2"):
        (tmp_path / name).mkdir()
    (tmp_path / ".git" / "config").write_text("")
    (tmp_path / ".one.png").write_text("")
    assert load(tmp_path).classes == ("java", "perl")
    assert [message for message in caplog.messages if "hidden folders" in message] == [
        f"{tmp_path}: passed over hidden folders with images, .net/ (4 images); a class needs a "
        "name without a dot in front"
    ]


# --- links -----------------------------------------------------------------------------------


def test_links_are_followed_where_asked_and_those_that_lead_out_are_named(tmp_path, caplog):
    fill(tmp_path / "plain", {"cat": 4, "dog": 4, "emu": 4})
    fill(tmp_path / "own", {"cat": 4, "dog": 3})
    fill(tmp_path / "away", {"cat": 4, "dog": 4, "emu": 4})
    (tmp_path / "own" / "emu").symlink_to(tmp_path / "away" / "emu")
    (tmp_path / "own" / "dog" / "003.png").symlink_to(tmp_path / "away" / "dog" / "003.png")
    found = load(tmp_path / "own", links="follow")
    assert same(found, load(tmp_path / "plain"))
    lines = [message for message in caplog.messages if "symbolic" in message]
    assert lines == [
        f"{tmp_path}/own: 5 of 12 images lie outside of it, by symbolic links: "
        f"{tmp_path}/own/dog/003.png to {tmp_path}/away/dog/003.png, "
        f"{tmp_path}/own/emu/000.png to {tmp_path}/away/emu/000.png, "
        f"{tmp_path}/own/emu/001.png to {tmp_path}/away/emu/001.png, and 2 more"
    ]


def test_links_within_the_folder_need_no_line(tmp_path, caplog):
    fill(tmp_path, {"cat": 4, "dog": 4})
    (tmp_path / ".store").mkdir()
    (tmp_path / "cat" / "000.png").rename(tmp_path / ".store" / "a.png")
    (tmp_path / "cat" / "000.png").symlink_to("../.store/a.png")
    assert len(load(tmp_path, links="follow").train) > 0
    assert not [message for message in caplog.messages if "symbolic" in message]


def class_twice(root):
    (root / "emu").symlink_to(root / "dog")


def image_twice(root):
    (root / "cat" / "x.png").symlink_to(root / "dog" / "000.png")


def nowhere(root):
    (root / "emu").symlink_to(root / "gone")


def itself(root):
    (root / "cat" / "x.png").symlink_to(root / "cat" / "x.png")


def parent(root):
    (root / "cat" / "up").symlink_to(root)


BAD_LINKS = {
    "one class twice": (class_twice, "(?s)4 images .* twice, .*dog/000.png and .*emu/000.png"),
    "one image twice": (image_twice, "(?s)1 images .* twice, .*cat/x.png and .*dog/000.png"),
    "a link to nothing": (nowhere, "emu: is a symbolic link to .*/gone, where nothing is"),
    "a link to itself": (itself, "cat/x.png: is a symbolic link to .*, where nothing is"),
    "a folder in itself": (parent, "cat/up: is a folder inside of what would be the class 'cat'"),
}  # fmt: skip


@pytest.mark.parametrize(("link", "message"), BAD_LINKS.values(), ids=BAD_LINKS)
def test_a_link_that_cannot_be_followed_is_named(tmp_path, link, message):
    fill(tmp_path, {"cat": 4, "dog": 4})
    link(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, links="follow")


def test_a_link_that_is_not_followed_is_named_with_where_it_leads(tmp_path):
    fill(tmp_path / "root", {"cat": 4, "dog": 4})
    (tmp_path / "root" / "emu").symlink_to(tmp_path)
    with pytest.raises(DataError, match=rf"root/emu: .* link, to {tmp_path}, .*links to follow"):
        load(tmp_path / "root")


@pytest.mark.parametrize("name", ["notes", "notes.txt", "a.png"])
def test_a_link_to_nothing_is_no_class_that_is_lost_in_silence(tmp_path, name):
    fill(tmp_path, {"cat": 4, "dog": 4})
    os.symlink(tmp_path / "gone", tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is a symbolic link to {tmp_path}/gone, where"):
        load(tmp_path)


# --- mirroring, shifts and crops -------------------------------------------------------------

INDICES = torch.tensor([1, 0, 1])


def augmented(found):
    return found.augmented(INDICES, stream(0, "augment"))[0]


@pytest.mark.parametrize(
    ("options", "padding", "flip"),
    [
        ({}, 1, True),
        ({"mirror": False}, 1, False),
        ({"shift": 3}, 3, True),
        ({"shift": 0, "mirror": False}, 0, False),
    ],
)
def test_mirroring_and_shifts_are_as_set_and_draw_as_before(tmp_path, options, padding, flip):
    found = load(fill(tmp_path, {"cat": 6, "dog": 6}), **options)
    assert (found.padding, found.flip, found.resized_crops) == (padding, flip, False)
    images, _ = found.train.take(INDICES)
    expected = data.augment(images, stream(0, "augment"), padding, flip)
    assert torch.equal(augmented(found), expected)
    if options.get("shift") == 0:
        assert torch.equal(expected, images)


@pytest.mark.parametrize("options", [{}, {"shift": 2, "mirror": False}])
def test_random_parts_are_trained_on_where_asked_and_not_shifted_unless_asked(tmp_path, options):
    fill(tmp_path, {"cat": 6, "dog": 6})
    for path in tmp_path.rglob("*.png"):
        noise(path)
    found = load(tmp_path, smallest_crop=0.5, **options)
    assert (found.resized_crops, found.smallest_crop) == (True, 0.5)
    generator = stream(0, "augment")
    parts, _ = random_crops(found.train, INDICES, generator, 0.5)
    shift, mirror = options.get("shift", 0), options.get("mirror", True)
    assert torch.equal(augmented(found), data.augment(parts, generator, shift, mirror))
    smaller = replace(found, smallest_crop=0.1)
    assert not torch.equal(augmented(smaller), augmented(found))


def test_embedded_sets_are_mirrored_and_shifted_as_set_too():
    plain, changed = data.load("digits"), data.load("digits", mirror=True, shift=2)
    assert (plain.padding, plain.flip, changed.padding, changed.flip) == (1, False, 2, True)
    assert same(plain, changed)
    images = plain.train.take(INDICES)[0]
    expected = data.augment(images, stream(0, "augment"), 2, True)
    assert torch.equal(augmented(changed), expected)


def test_crops_of_images_in_memory_are_refused_by_name():
    with pytest.raises(DataError, match=r"smallest_crop goes with imagenet and folder only.*shift"):
        data.load("digits", smallest_crop=0.5)


# --- small things ----------------------------------------------------------------------------


def test_capital_letters_make_no_class_of_what_systems_leave_behind(tmp_path):
    fill(tmp_path, {"cat": 3, "dog": 3})
    for name in ("__macosx", "THUMBS.DB", "$Recycle.Bin"):
        (tmp_path / name).mkdir()
    assert load(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize("few", [1, 2])
def test_a_class_of_fewer_images_than_splits_is_refused_with_what_to_do(tmp_path, few):
    fill(tmp_path, {"cat": 5, "dog": few})
    with pytest.raises(DataError, match=f"dog has {few}: add images to these classes, or move"):
        load(tmp_path)


def test_a_class_of_three_images_has_one_in_each_split(tmp_path):
    few = dict.fromkeys("abcdefgh", 3)
    fill(tmp_path, {**few, "z": 12})
    for seed in range(3):
        found = load(tmp_path, seed=seed)
        for split in (found.train, found.validation, found.test):
            assert everything(split)[1].bincount().tolist()[:8] == [1] * 8


@pytest.mark.parametrize("few", [1, 2])
def test_splits_that_are_given_need_one_image_of_each_class(tmp_path, few):
    for split in ("Training", "VALID", "Testing"):
        fill(tmp_path / split, {"cat": 5, "dog": few})
    assert [len(s) for s in (load(tmp_path).train, load(tmp_path).test)] == [5 + few] * 2
