"""Modules that a user froze stay frozen, whatever BoundNAS does with the model."""

import copy

import pytest
import torch
from tests.small import COST_RANGE, few_digits, mobilenet
from tests.spaces import images

from boundnas import SearchSettings, TrainSettings, calibrate, extract, fit
from boundnas.cost import MACs
from boundnas.search import Evaluator
from boundnas.supernet.modes import evaluating

FROZEN = ("stem.conv", "stages.0.0.se")


def partly_frozen():
    """A model in training mode, but for two of its modules and what is in one of them."""
    model = mobilenet().train()
    names = [name for name, _ in model.named_modules()]
    for name in FROZEN:
        assert name in names
        model.get_submodule(name).eval()
    return model


def modes_of(model):
    return {name: module.training for name, module in model.named_modules()}


def calibrated(model):
    return calibrate(model, model.space.largest, [images(model, 4)])


def torn(model):
    with pytest.raises(OSError, match="torn"), evaluating(model):
        raise OSError("torn")


LEAVE_IT_AS_IT_IS = {
    "counting": MACs,
    "calibration": calibrated,
    "extraction": lambda model: extract(model, calibrated(model)),
    "a pass that fails": torn,
}


@pytest.mark.parametrize("name", LEAVE_IT_AS_IT_IS)
def test_every_module_keeps_the_mode_it_is_in(name):
    model = partly_frozen()
    before = modes_of(model)
    LEAVE_IT_AS_IT_IS[name](model)
    assert modes_of(model) == before
    assert len(set(before.values())) == 2


def few_steps(model):
    seen = []
    hook = model.register_forward_hook(lambda m, *_: seen.append(modes_of(m)))
    fit(model, few_digits(), cost_range=COST_RANGE, settings=TrainSettings(steps=1, batch_size=16))
    hook.remove()
    return seen[-1]


def measured(model):
    settings = SearchSettings(calibration_images=32, batch_size=16)
    evaluator = Evaluator(model, few_digits(), settings, 0)
    with evaluator.measuring() as measure:
        list(measure([model.space.smallest]))
    evaluator.scores(evaluator.calibrated(model.space.largest), few_digits().test, torch.arange(2))


def test_what_is_frozen_stays_so_in_training_and_in_the_next_training():
    model = partly_frozen()
    frozen = modes_of(model)
    assert few_steps(model) == frozen
    assert not any(modes_of(model).values()), "a trained model is ready to be evaluated"
    assert few_steps(copy.deepcopy(model)) == frozen
    model.train()  # the user's own word counts
    assert all(few_steps(model).values())
    assert all(few_steps(model).values())


def test_what_is_frozen_stays_so_after_a_search():
    model = partly_frozen()
    frozen = modes_of(model)
    measured(model)
    assert not any(modes_of(model).values())
    assert few_steps(model) == frozen
