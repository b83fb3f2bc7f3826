"""Folders of a user's own images: splits, classes, names, and which images can be read."""

import os
import shutil

import pytest
import torch
from PIL import Image
from tests.image_files import cut, everything, fill, paths_of, png, raw_tiff, same

from boundnas import data
from boundnas.data import ImageFiles
from boundnas.data.decoding import Decoding
from boundnas.data.readable import SHOWN
from boundnas.errors import DataError
from boundnas.randomness import stream

# --- splits ----------------------------------------------------------------------------------

GIVEN = [
    ("train", "val"),
    ("train", "valid"),
    ("train", "validation"),
    ("train", "dev"),
    ("train", "test"),
    ("Train", "Test"),
    ("TRAIN", "Valid", "TEST"),
    ("training", "testing"),
    ("Training", "validation", "Testing"),
    ("train", "valid", "test"),
    ("train",),
]
ROLES = {"tr": "train", "va": "validation", "de": "validation", "te": "test"}


@pytest.mark.parametrize("splits", GIVEN, ids=" ".join)
def test_split_folders_are_splits_and_those_not_given_come_out_of_training(tmp_path, splits):
    for split in splits:
        fill(tmp_path / split, {"cat": 6, "dog": 7, "test": 8})
    folder = data.image_folder(tmp_path, 8)
    assert folder.classes == ("cat", "dog", "test")
    parts = {role: paths_of(getattr(folder, role)) for role in ("train", "validation", "test")}
    given = {ROLES[split[:2].lower()]: split for split in splits}
    for role, paths in parts.items():
        assert {p.relative_to(tmp_path).parts[0] for p in paths} == {given.get(role, splits[0])}
        labels = everything(getattr(folder, role))[1].tolist()
        assert [folder.classes[label] for label in labels] == [p.parent.name for p in paths]
        assert set(labels) == {0, 1, 2}
    everywhere = [path for paths in parts.values() for path in paths]
    assert sorted(everywhere) == sorted(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("removed", ["test", "validation", "train"])
def test_an_image_that_is_removed_moves_no_other_from_split_to_split(tmp_path, removed):
    fill(tmp_path, {"cat": 40, "dog": 40})
    before = data.image_folder(tmp_path, 8)
    gone = paths_of(getattr(before, removed))[3]
    gone.unlink()
    after = data.image_folder(tmp_path, 8)
    for split in ("train", "validation", "test"):
        rest = [path for path in paths_of(getattr(before, split)) if path != gone]
        assert paths_of(getattr(after, split)) == rest
    if removed != "train":
        assert (before.mean, before.std) == (after.mean, after.std)


LITTER = (".DS_Store", "Thumbs.db", "__MACOSX/cat/._1.png", ".ipynb_checkpoints/a.png", "@eaDir/a")


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    fill(tmp_path / "with", {"cat": 5, "dog": 5})
    fill(tmp_path / "without", {"cat": 5, "dog": 5})
    for place in ("", "cat"):
        for name in LITTER:
            path = tmp_path / "with" / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    (tmp_path / "with" / "README.txt").write_text("")
    found, clean = (data.image_folder(tmp_path / name, 8) for name in ("with", "without"))
    assert found.classes == ("cat", "dog")
    assert same(found, clean)


def test_other_files_beside_images_are_counted(tmp_path, caplog):
    fill(tmp_path, {"cat": 5, "dog": 5})
    for name in ("cat/a.HEIC", "dog/b.heic", "dog/notes.txt", "dog/LICENSE"):
        (tmp_path / name).write_text("")
    data.image_folder(tmp_path, 8)
    (line,) = (message for message in caplog.messages if "passed over" in message)
    assert line == (
        f"{tmp_path}: passed over 4 files in class folders without the suffix of an image "
        "(2 .heic, 1 .txt, 1 no suffix)"
    )


# --- images that cannot be read --------------------------------------------------------------


def postscript(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


UNREADABLE = {
    "empty": (".png", lambda path: path.write_bytes(b""), "is none of BMP, GIF, JPEG"),
    "text": (".jpg", lambda path: path.write_text("not an image"), "is none of BMP, GIF, JPEG"),
    "postscript": (".png", postscript, "is none of BMP, GIF, JPEG"),
    "12 bits": (
        ".tif",
        lambda path: raw_tiff(path, bytes(96), 8, 8, 12),
        "cannot be read as an image: it has 12 bits a channel",
    ),
    "bomb": (
        ".png",
        lambda path: Image.new("1", (20_000, 20_000)).save(path),
        "cannot be read as an image: .*exceeds limit",
    ),
    "half a JPEG": (".jpg", cut, "cannot be read as an image: .*truncated"),
    "most of a JPEG": (".jpg", lambda path: cut(path, 0.97), "cannot be read.*truncated"),
    "half a progressive JPEG": (
        ".jpeg",
        lambda path: cut(path, progressive=True),
        "cannot be read.*truncated",
    ),
    "half a PNG": (".png", cut, "cannot be read as an image: .*(truncated|broken)"),
    "half a bitmap": (".bmp", cut, "cannot be read as an image: .*truncated"),
    "half a WebP": (".webp", cut, "cannot be read|is none of"),
    "half a TIFF": (".tiff", cut, "cannot be read|is none of"),
    "a pipe": (".png", os.mkfifo, "cannot be read as an image: it is no regular file"),
    "a header alone": (".xyz.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "is none of"),
}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_unreadable_image_of_every_split_is_in_one_list(tmp_path, split):
    for name in ("train", "validation", "test"):
        fill(tmp_path / name, {"cat": 3, "dog": 3})
    for number, (suffix, write, _) in enumerate(UNREADABLE.values()):
        write(tmp_path / split / "dog" / f"bad{number}{suffix}")
    with pytest.raises(DataError) as caught:
        data.image_folder(tmp_path, 8)
    first, *lines = str(caught.value).splitlines()
    bad = len(UNREADABLE)
    assert first == (
        f"{bad} of {bad + 18} images cannot be used; mend or remove them, or set damaged to skip:"
    )
    reasons = dict(line.strip().split(": ", 1) for line in lines)
    for number, (suffix, _, message) in enumerate(UNREADABLE.values()):
        path = tmp_path / split / "dog" / f"bad{number}{suffix}"
        assert_matches(reasons.pop(str(path)), message)
    assert not reasons


def assert_matches(text, pattern):
    with pytest.raises(DataError, match=pattern):
        raise DataError(text)


@pytest.mark.parametrize("place", ["train", "val"])
def test_images_of_imagenet_are_looked_at_first_too(tmp_path, place):
    for name in ("train", "val"):
        fill(tmp_path / name, {"n01440764": 4, "n01443537": 4}, ".JPEG")
    cut(tmp_path / place / "n01440764" / "001.JPEG")
    with pytest.raises(DataError, match=f"1 of 16 images cannot .*\n.*{place}/n01440764/001.JPEG"):
        data.imagenet(tmp_path, 24)


def test_many_faults_are_counted_and_the_first_twenty_shown(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    for i in range(SHOWN + 3):
        (tmp_path / "cat" / f"bad{i}.png").write_text("no image")
    with pytest.raises(DataError, match="23 of 33 images cannot be used") as caught:
        data.image_folder(tmp_path, 8)
    lines = str(caught.value).splitlines()
    assert len(lines) == SHOWN + 2
    assert lines[-1] == "  and 3 more"


def test_an_image_that_goes_after_the_check_is_named_when_it_is_taken(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    folder = data.image_folder(tmp_path, 8)
    gone = paths_of(folder.test)[0]
    gone.unlink()
    with pytest.raises(DataError, match=f"{gone}: cannot be read as an image: it is not there"):
        folder.test.take(torch.tensor([0]))


def animated(path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    frames[0].save(path, save_all=True, append_images=frames[1:])


READABLE = {
    "a JPEG that is called PNG": (
        ".png",
        lambda path: png(path.with_suffix(".jpg"), (200, 0, 0), quality=95).rename(path),
    ),
    "a single pixel": (".png", lambda path: png(path, (200, 0, 0), (1, 1))),
    "a line": (".png", lambda path: png(path, (200, 0, 0), (1, 300))),
    "an animated GIF": (".gif", animated),
    "an animated WebP": (".webp", animated),
    "an animated PNG": (".png", animated),
    "a TIFF of pages": (".tif", animated),
    "capital letters": (".PNG", lambda path: png(path, (200, 0, 0))),
}


@pytest.mark.parametrize(("suffix", "write"), READABLE.values(), ids=READABLE)
def test_an_odd_image_is_read_as_what_it_shows_first(tmp_path, suffix, write):
    fill(tmp_path, {"cat": 3, "dog": 3})
    write(tmp_path / "cat" / f"odd{suffix}")
    folder = data.image_folder(tmp_path, 8)
    for split in (folder.train, folder.validation, folder.test):
        for i, path in enumerate(paths_of(split)):
            if path.stem == "odd":
                image = split.take(torch.tensor([i]))[0][0].int()
    assert (image - torch.tensor([200, 0, 0])[:, None, None]).abs().max() <= 8


# --- names -----------------------------------------------------------------------------------

UNWRITABLE = {
    b"caf\xe9": "caf\\udce9",
    b"a\nb": "a\\nb",
    b"a\tb": "a\\tb",
    b"a\x1b[31m": "a\\x1b[31m",
    b"a\x7f": "a\\x7f",
    "a\u202eb".encode(): "a\\u202eb",
    "a\u2028b".encode(): "a\\u2028b",
    "a\u2029b".encode(): "a\\u2029b",
    b"  ": "  ",
}


def test_classes_that_no_file_can_hold_are_listed_escaped_before_anything_is_read(tmp_path):
    fill(tmp_path, {"cat": 3})
    for name in UNWRITABLE:
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    with pytest.raises(DataError) as caught:
        data.image_folder(tmp_path, 8)
    first, *lines = str(caught.value).splitlines()
    assert f"{len(UNWRITABLE)} of {len(UNWRITABLE) + 1} class names cannot be written" in first
    for shown in UNWRITABLE.values():
        assert any(f"'{shown}' " in line for line in lines), shown
    assert len(lines) == len(UNWRITABLE)
    str(caught.value).encode()


WRITABLE = [
    "a, b",
    "$x",
    "<b>",
    "a|b",
    "`a`",
    " a ",
    "con",
    "\U0001f431\u200d",
    "\u05d7",
    "a\\b",
    "'",
]


def test_any_other_name_of_a_class_is_kept_as_it_is(tmp_path):
    fill(tmp_path, dict.fromkeys(WRITABLE, 3))
    assert data.image_folder(tmp_path, 8).classes == tuple(sorted(WRITABLE))


def test_a_folder_whose_name_no_report_can_hold_is_refused(tmp_path):
    fill(tmp_path / "a\nb", {"cat": 3, "dog": 3})
    with pytest.raises(DataError, match=r"'a\\nb' has characters that cannot be written"):
        data.image_folder(tmp_path / "a\nb", 8)


# --- image folders ---------------------------------------------------------------------------


def test_a_folder_of_classes_is_split_into_three_disjoint_parts_of_all_images(tmp_path):
    fill(tmp_path, {"dog": 40, "cat": 20, "ant": 20})
    fill(tmp_path, {"cat": 20}, ".JPG")
    folder = data.image_folder(tmp_path, 16)
    parts = [paths_of(s) for s in (folder.train, folder.validation, folder.test)]
    assert [len(p) for p in parts] == [71, 6, 23]
    assert len({path for part in parts for path in part}) == 100
    assert folder.classes == ("ant", "cat", "dog")
    assert (folder.shape, folder.padding, folder.flip) == ((3, 16, 16), 2, True)
    assert folder.name == tmp_path.name
    for split, part in zip((folder.train, folder.validation, folder.test), parts, strict=True):
        labels = everything(split)[1].tolist()
        names = [path.relative_to(tmp_path).parts[0] for path in part]
        assert names == [folder.classes[label] for label in labels]


def test_the_splits_of_a_folder_ignore_the_order_of_its_listing(tmp_path, monkeypatch):
    fill(tmp_path, {"cat": 8, "dog": 8})
    before = data.image_folder(tmp_path, 8)
    listing = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda self: sorted(listing(self), reverse=True))
    after = data.image_folder(tmp_path, 8)
    assert same(before, after)
    assert (before.mean, before.std) == (after.mean, after.std)


def test_the_seed_moves_the_validation_set_of_a_folder_but_not_the_test_set(tmp_path):
    fill(tmp_path, {"cat": 30, "dog": 30})
    zero, one = (data.image_folder(tmp_path, 8, seed=seed) for seed in (0, 1))
    assert paths_of(zero.test) == paths_of(one.test)
    assert paths_of(zero.validation) != paths_of(one.validation)


def link_to_image(tmp_path):
    outside = png(tmp_path / "outside.png")
    (tmp_path / "root" / "cat" / "link.png").symlink_to(outside)


def link_to_class(tmp_path):
    fill(tmp_path / "outside", {"emu": 5})
    (tmp_path / "root" / "emu").symlink_to(tmp_path / "outside" / "emu")


def link_inside(tmp_path):
    (tmp_path / "root" / "cat" / "link.png").symlink_to(tmp_path / "root" / "dog" / "000.png")


def broken_link(tmp_path):
    (tmp_path / "root" / "cat" / "link.png").symlink_to(tmp_path / "nowhere.png")


@pytest.mark.parametrize("link", [link_to_image, link_to_class, link_inside, broken_link])
def test_a_symbolic_link_below_the_folder_is_refused_by_name(tmp_path, link):
    fill(tmp_path / "root", {"cat": 5, "dog": 5})
    link(tmp_path)
    with pytest.raises(DataError, match=r"root/(cat/link\.png|emu): is a symbolic link"):
        data.image_folder(tmp_path / "root", 8)


def test_the_folder_itself_may_be_a_link(tmp_path):
    fill(tmp_path / "root", {"cat": 5, "dog": 5})
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert same(data.image_folder(tmp_path / "link", 8), data.image_folder(tmp_path / "root", 8))


def classes(*names):
    return dict.fromkeys(names, 5)


def mismatched(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"cat": 5, "emu": 5})


def small_train(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 1})
    fill(tmp_path / "test", {"cat": 5, "dog": 5})


def empty_test(tmp_path):
    fill(tmp_path / "train", {"cat": 5, "dog": 5})
    fill(tmp_path / "test", {"cat": 5, "dog": 0})


BAD_FOLDERS = {
    "no classes": (lambda p: (p / "notes.txt").write_text(""), "at least 2 classes, found none"),
    "one class": (lambda p: fill(p, {"cat": 5}), "at least 2 classes, found cat"),
    "an empty class": (
        lambda p: fill(p, {"cat": 5, "dog": 0, "emu": 2}),
        "at least 3 images .*; dog has 0, emu has 2",
    ),
    "one training image": (small_train, "train: every class needs at least 2.*; dog has 1"),
    "no test image": (empty_test, "test: every class needs at least 1.*; dog has 0"),
    "other classes in test": (
        mismatched,
        "same classes; found only in train/: dog; only in test/: emu",
    ),
    "other classes in validation": (
        lambda p: (
            fill(p / "train", classes("cat", "dog")),
            fill(p / "dev", classes("cat", "Dog")),
        ),
        "train/ and dev/ must hold the same classes; found only in train/: dog; only in dev/: Dog",
    ),
    "a split beside classes": (
        lambda p: fill(p, classes("cat", "train", "zebra")),
        "train/ would be a split and cat/, zebra/ classes; name every sub-folder as a split",
    ),
    "splits beside a folder": (
        lambda p: (fill(p / "Train", classes("a", "b")), fill(p / "holdout", classes("a", "b"))),
        "Train/ would be a split and holdout/ a class",
    ),
    "two names of one split": (
        lambda p: [fill(p / split, classes("a", "b")) for split in ("train", "val", "validation")],
        r"val/, validation/ are names of one split \(validation\)",
    ),
    "a split twice, by case": (
        lambda p: [fill(p / split, classes("a", "b")) for split in ("train", "Train")],
        r"Train/, train/ are names of one split \(train\)",
    ),
    "only a test set": (
        lambda p: fill(p / "test", classes("a", "b")),
        "test/ but no folder train/",
    ),
    "no training set": (
        lambda p: [fill(p / split, classes("a", "b")) for split in ("val", "test")],
        "test/, val/ but no folder train/",
    ),
    "images in a split": (
        lambda p: (fill(p / "train", classes("a", "b")), png(p / "train" / "c.png")),
        "train/c.png: is one of 1 images beside the class folders",
    ),
    "images beside classes": (
        lambda p: (fill(p, classes("a", "b")), png(p / "c.png")),
        "c.png: is one of 1 images beside the class folders",
    ),
    "classes that are named as splits": (
        lambda p: fill(p, classes("train", "test")),
        "000.png: is one of 5 images .* if train is itself a class, put all classes into",
    ),
    "an empty validation set": (
        lambda p: (fill(p / "train", classes("a", "b")), (p / "valid").mkdir()),
        "only in train/: a, b",
    ),
    "folders within a class": (
        lambda p: fill(p / "cat", classes("b", "a")) and fill(p, classes("dog")),
        "cat/a: is a folder inside of what would be the class 'cat'",
    ),
    "splits under unknown names": (
        lambda p: [fill(p / split, classes("a", "b")) for split in ("trainset", "testset")],
        "testset/a: is a folder inside of .* splits are named train, val and test",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_folder_that_cannot_be_used_says_what_it_found(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}.*{message}"):
        data.image_folder(tmp_path, 8)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        data.image_folder(tmp_path / "nowhere", 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", "is no folder"),
        ("x" * 300, "no such folder"),
        ("a\0b", r"a\\x00b: no such folder"),
    ],
)
def test_a_path_that_is_no_folder_is_named(tmp_path, name, message):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=message):
        data.image_folder(str(tmp_path / name), 8)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX errors")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, {"cat": 5, "dog": 5})
    listing = type(tmp_path).iterdir

    def refuse(self):
        if self.name == "dog":
            raise PermissionError(13, "Permission denied")
        return listing(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(DataError, match=r"dog: cannot be listed \(Permission denied\)"):
        data.image_folder(tmp_path, 8)


def another(path):
    Image.new("RGB", (12, 12), (1, 2, 3)).save(path)


def of_equal_size(path):
    held = path.read_bytes()
    another(path)
    path.write_bytes(path.read_bytes().ljust(len(held), b"\0"))
    assert path.stat().st_size == len(held)


REPLACED = {
    "by another image": (another, "cat/000.png: was written since this data set was read first"),
    "by one of equal size": (of_equal_size, "cat/000.png: was written since"),
    "by a part of it": (lambda path: path.write_bytes(path.read_bytes()[:60]), "is truncated"),
    "by nothing": (lambda path: path.unlink(), "cat/000.png: .* it is not there"),
    "by a folder": (lambda path: (path.unlink(), path.mkdir()), "it is no regular file"),
    "by a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "it is no regular file"),
    "by a link": (lambda path: (path.unlink(), path.symlink_to("001.png")), "was written since"),
    "in its folder": (lambda path: path.parent.rename(path.parents[1] / "bat"), "it is not there"),
}


@pytest.mark.parametrize(("replace", "message"), REPLACED.values(), ids=REPLACED)
def test_what_is_read_later_is_the_image_that_was_there_or_refused(tmp_path, replace, message):
    labels = torch.arange(3) // 2
    paths = [tmp_path / f"{kind}/{i:03}.png" for i, kind in enumerate(("cat", "cat", "dog"))]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        pixels = torch.randint(256, (12, 12, 3), generator=stream(i, "pixels"), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
        os.utime(path, (i, i))
    source, every = ImageFiles(paths, labels, Decoding(8)), torch.arange(3)
    first, held = source.take(every)[0], tmp_path / "held"
    shutil.copytree(paths[0].parent, held)  # which keeps when they were written
    replace(paths[0])
    for take in (source.take, lambda i: source.crops(i, 0.5, torch.zeros(len(i), 10, 4))):
        with pytest.raises(DataError, match=message):
            take(every)
        assert len(take(every[2:])[0]) == 1
    for place in (tmp_path / "cat", tmp_path / "bat"):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(held, paths[0].parent)
    assert torch.equal(source.take(every)[0], first)
