"""Arguments of the public functions: a slip is answered where it was made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tests.small import COST_RANGE, few_digits, mobilenet, trained

import boundnas as bn
from boundnas import Dimension, elastic
from boundnas.errors import ArgumentError, BoundNASError
from boundnas.typed import check_argument

FITTING = [
    (1, int), (np.int64(3), int), (1, float), (1.5, float), (np.float32(1), float),
    (None, int | None), (2, int | None), ("a", str), (True, bool), ((1, 2.5), tuple[float, float]),
    ([1, 2], tuple[float, float]), ((1, 2, 3), tuple[int, ...]), ([1, "a"], Sequence[int | str]),
    ("x", Literal["x", "y"]), ({}, dict[str, int]), ({}, Mapping[str, int]), (len, Callable),
    (Path("x"), Path | str), (object(), Any), ((), tuple[int, ...]),
]  # fmt: skip
REFUSED = [
    (True, int), ("1", int), (1.0, int), ("5M", float), (True, float), (torch.ones(()), float),
    (1, str | None), (5, tuple[float, float]),
    ((1,), tuple[float, float]), ((1, 2, 3), tuple[float, float]), (("a", 1), tuple[float, float]),
    ("ab", Sequence[str]), (["a"], Sequence[int]), ("z", Literal["x", "y"]), ([], dict[str, int]),
    (None, int), (7, Callable),
]  # fmt: skip


@pytest.mark.parametrize(("value", "allowed"), FITTING)
def test_what_an_annotation_allows_passes(value, allowed):
    check_argument("f", "x", value, allowed)


@pytest.mark.parametrize(("value", "allowed"), REFUSED)
def test_what_it_does_not_allow_is_refused_with_what_was_found(value, allowed):
    with pytest.raises(ArgumentError, match=rf"f: x must be .*, found {type(value).__name__} "):
        check_argument("f", "x", value, allowed)


def fit(**changed):
    given = {"model": mobilenet(), "data": few_digits(), "cost_range": COST_RANGE}
    settings = bn.TrainSettings(steps=1, batch_size=16)
    given = {**given, "settings": settings, **changed}
    return bn.fit(given.pop("model"), given.pop("data"), **given)


def largest():
    return trained().model.space.largest


SLIPS = {
    "a folder as data": (lambda: fit(data="data"), r"data must be ImageData or Data, found str"),
    "a class as the model": (lambda: fit(model=bn.models.MobileNet), "fit: model must be Supernet"),
    "a plain module": (lambda: fit(model=torch.nn.Identity()), "found Identity Identity"),
    "one cost": (lambda: fit(cost_range=5), r"must be tuple\[float, float\] or .*, found int"),
    "text costs": (lambda: fit(cost_range=("1M", "2M")), r"found tuple \('1M', '2M'\)"),
    "settings as a dict": (lambda: fit(settings={"steps": 5}), "TrainSettings or None, found dict"),
    "settings of the search": (lambda: fit(settings=bn.SearchSettings()), "found SearchSettings"),
    "a seed of text": (lambda: fit(seed="a"), "fit: seed must be int, found str 'a'"),
    "half a seed": (lambda: fit(seed=0.5), "fit: seed must be int, found float 0.5"),
    "a folder of a number": (lambda: fit(folder=3), "fit: folder must be .* found int 3"),
    "a cost by its name": (lambda: fit(cost="macs"), r"cost must be Cost or .*, found str"),
    "an unknown argument": (lambda: fit(lr=0.1), r"fit: got an unexpected keyword argument 'lr'; "
        r"it is called as fit\(model, data, cost_range, cost, settings, seed, folder"),
    "no cost range": (lambda: bn.fit(mobilenet(), few_digits()), "fit: missing a required"),
    "training settings": (lambda: bn.search(trained(), bn.TrainSettings(steps=1)),
        "search: settings must be SearchSettings or None, found TrainSettings"),
    "a model to search": (lambda: bn.search(mobilenet()), "search: run must be Run, found Mobile"),
    "an architecture's name": (lambda: bn.extract(mobilenet(), "largest"),
        "extract: arch must be Architecture, found str 'largest'"),
    "a run to extract": (lambda: bn.extract(trained(), largest()), "model must be Supernet"),
    "a class to export": (lambda: bn.export(torch.nn.Linear, "x.onnx"), "net must be Module"),
    "a number to export to": (lambda: bn.export(torch.nn.Identity(), 3), "path must be Path | s"),
    "a shape of one": (lambda: bn.export(torch.nn.Identity(), "x.onnx", 3), "input_shape must"),
    "a class of text": (lambda: bn.tasks.Segmentation(ignore="a"), "ignore must be int, found str"),
    "a token of text": (lambda: bn.tasks.NextToken(ignore="a"), "NextToken: ignore must be int"),
    "a metric of tokens": (lambda: bn.tasks.NextToken("nats"), "or 'perplexity', found str"),
    "a metric of numbers": (lambda: bn.tasks.Regression("r2"), "'R²' or 'MAE' or 'RMSE', found"),
    "one mean": (lambda: bn.tasks.Regression(mean=1.0, std=1.0), "mean must be tuple.*float 1.0"),
    "smoothing of text": (lambda: bn.tasks.Classification("0.1"), "smoothing must be float, found"),
    "a text budget": (lambda: bn.Front("macs", COST_RANGE, (), ()).best(macs="5M"),
        "Front.best: macs must be float, found str '5M'"),
    "no architecture": (lambda: mobilenet()(torch.zeros(1, 1, 8, 8)),
        "MobileNet: arch must be Architecture, found NoneType None"),
    "a dict as architecture": (lambda: mobilenet()(torch.zeros(1, 1, 8, 8), {"stem.width": 2}),
        "MobileNet: arch must be Architecture, found dict"),
    "an architecture to calibrate": (lambda: bn.calibrate(mobilenet(), {}, []), "must be Arch"),
    "tables of a space": (lambda: bn.models.MobileNet(3, 4), "MobileNet: stem must be StemTable"),
    "a folder of numbers": (lambda: bn.data.image_folder(3, 8), "image_folder: folder must be"),
    "a share of text": (lambda: bn.data.digits(validation_fraction="x"), "digits: validation_frac"),
    "a seed of the split": (lambda: bn.data.digits(seed="a"), "digits: seed must be int"),
    "no folder": (lambda: bn.data.cifar10(), r"cifar10: missing a required .*'folder'"),
    "a shape": (
        lambda: bn.export(torch.nn.Identity(), "x.onnx"),
        r"x.onnx: the shape of one image is not known of this Identity; export what extract\(",
    ),
    "a searched number of groups": (lambda: elastic.GroupNorm(3, Dimension("w", (3, 6))),
        "GroupNorm: group_width must be int, found Dimension"),
    "a searched stride": (lambda: elastic.Conv2d(2, 4, 3, stride=Dimension("s", (1, 2))),
        "Conv2d: stride must be .*, found Dimension"),
    "a searched bias": (lambda: elastic.Linear(2, 4, bias=Dimension("b", (False, True))),
        "Linear: bias must be bool, found Dimension"),
    "a precision of text": (lambda: elastic.BatchNorm2d(4, eps="1e-5"), "eps must be float"),
    "no probability": (lambda: elastic.Dropout(None), "Dropout: probability must be float"),
    "layers that are none": (lambda: elastic.Stage([torch.tanh], 1), r"layers\[0\] must be Module"),
    "half a pixel": (lambda: replace(few_digits(), padding=1.5), "padding must be int, fo"),
    "a switch of text": (lambda: replace(few_digits(), flip="no"), "bool, found str 'no'"),
    "crops of text": (lambda: replace(few_digits(), resized_crops="no"), "must be bool"),
    "a share in text": (lambda: replace(few_digits(), smallest_crop="1"), "crop must be float"),
    "a seed of images": (lambda: bn.data.assemble(
        "x", few_digits().test, None, few_digits().test, "ab", validation_fraction=0.1, seed="a",
        padding=0, flip=False,
    ), "assemble: seed must be int, found str 'a'"),
    "a cost of a plain module": (lambda: bn.cost.MACs(torch.nn.Identity()), "model must be S"),
    "a cost of nothing": (lambda: bn.cost.Parameters(None), "Parameters: model must be Supernet"),
    "a cost of values": (lambda: bn.cost.MACs(mobilenet())({"width": 4}), "arch must be Archi"),
    "sides of images": (lambda: bn.models.mobilenet_v2(0.1, image_size=(16, 8)),
        "mobilenet_v2: image_size must be int, found tuple"),
    "a width in text": (lambda: bn.models.paper_space("width", "0.1"), "width must be float, fo"),
    "sides of a residual network": (lambda: bn.models.resnet(0.1, (8, 8)), "_size must be int"),
    "a setting without its name": (lambda: bn.TrainSettings(30),
        "TrainSettings: settings are given by their names, as batch_size=64, found 30"),
    "an unknown rule": (lambda: bn.Rule(width=(4, 8)), "Rule: got an unexpected .*'width'; it"),
    "an amount of text": (lambda: bn.cost.amount("width"), "of 'width' it fails, ValueError: inv"),
    "an amount that fails": (lambda: bn.cost.amount(Dimension("w", (1, 2)), lambda w: 1 // (w - 2)),
        "of 2 it fails, ZeroDivisionError"),
    "the largest of one": (lambda: bn.cost.Largest(3), "of a tuple of polynomials, found 3"),
    "an unknown way to resize": (lambda: elastic.Resized(torch.nn.Identity(), 8, "cubic"),
        "Resized: mode must be .*bicubic.*, found str 'cubic'"),
    "what is split is no joined width": (lambda: elastic.Split(Dimension("w", (2, 4))),
        "Split: channels must be Joined, found Dimension"),
    "an argument of torch's layer": (lambda: elastic.Conv2d(2, 4, 3, device="cpu"),
        "Conv2d: got an unexpected keyword argument 'device'; it is called as"),
    "a suffix": (lambda: bn.export(torch.nn.Identity(), "x.txt"), "suffix must be one of .onnx"),
}  # fmt: skip


@pytest.mark.parametrize(("slip", "message"), SLIPS.values(), ids=SLIPS)
def test_a_slip_is_an_error_of_our_family_that_names_the_argument(slip, message):
    with pytest.raises(BoundNASError, match=message):
        slip()


def test_an_argument_error_is_a_type_error_too():
    with pytest.raises(TypeError):
        bn.extract(mobilenet(), None)


SURROUNDINGS = {
    "another device": (lambda: torch.device("meta"), "made on meta by default, random numbers"),
    "half precision": (
        lambda: torch.autocast("cpu", torch.bfloat16),
        "autocast is on, which",
    ),
}


@pytest.mark.parametrize("function", [bn.fit, bn.data.digits, bn.elasticize, bn.models.vit])
@pytest.mark.parametrize(("made", "message"), SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_what_pytorch_would_do_otherwise_to_all_of_it_is_refused(function, made, message):
    with made(), pytest.raises(ArgumentError, match=message):
        function()
