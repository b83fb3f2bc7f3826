"""Data sets in words."""

import pytest
from tests.image_files import fill

from boundnas import data
from boundnas.data.description import augmentation, sizes

AUGMENTED = {
    (0, False, None): "as they are",
    (1, False, None): "at random shifted by up to 1 pixel",
    (4, True, None): "at random shifted by up to 4 pixels, mirrored left to right",
    (0, True, 0.08): "at random cropped to 0.08 of the area or more, mirrored left to right",
    (0, False, 0.25): "at random cropped to 0.25 of the area or more",
}


@pytest.mark.parametrize(("how", "words"), AUGMENTED.items(), ids=AUGMENTED.values())
def test_what_training_images_go_through_is_said(how, words):
    assert augmentation(*how) == words


def test_of_many_classes_the_smallest_are_listed():
    names = [f"c{i}" for i in range(30)]
    text = sizes(names, {"train": range(130, 100, -1), "test": [1] * 30})
    assert text.startswith("of each class (train, test): c29 101, 1; c28 102, 1; ")
    assert text.endswith("; c10 120, 1; and 10 more")


def test_a_folder_says_its_sizes_and_what_is_done_to_its_images(tmp_path):
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        fill(tmp_path / "pets" / split, {"cat\u00e9": count, "dog": count + 1})
    found = data.load(
        "folder", tmp_path / "pets", 8, channels=1, fit="pad", background="grey", mirror=False
    )
    assert found.counts == {"train": (5, 6), "validation": (3, 4), "test": (2, 3)}
    assert str(found).splitlines() == [
        "pets: 11 training, 7 validation and 5 test images of 1x8x8 and 2 classes",
        "  of each class (train, validation, test): cat\u00e9 5, 3, 2; dog 6, 4, 3",
        "  training images are at random shifted by up to 1 pixel",
        "  image files are turned as their EXIF orientation says, transparent parts laid over "
        "grey, made grey, and resized to fit into 8x8 pixels, over grey in the middle (bicubic, "
        "a JPEG decoded at 1/8, 1/4 or 1/2 of its size where both sides keep 16)",
    ]


JPEG = "(bicubic, a JPEG decoded at 1/8, 1/4 or 1/2 of its size where both sides keep"
FITTED = {
    data.Decoding(8): f"resized to 8x8 pixels whatever the ratio of the sides {JPEG} 16)",
    data.Decoding(8, fit="crop"): f"the square in the middle resized to 8x8 pixels {JPEG} 16)",
    data.Decoding(8, fit="crop", centre=0.875): "the square in the middle, 0.875 of the shorter "
    f"side wide, resized to 8x8 pixels {JPEG} 19)",
}


@pytest.mark.parametrize(("decoding", "words"), FITTED.items(), ids=FITTED.values())
def test_how_an_image_becomes_a_square_is_said(decoding, words):
    assert str(decoding).endswith(f"made RGB, and {words}")
    assert "over white, " in str(decoding)
