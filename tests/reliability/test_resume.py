"""Row 1: stopped after any step and continued, every shipped space ends in the same bytes."""

import os
import signal

import pytest
import torch
from tests.reliability.child import replaced
from tests.small import few_digits, files

from boundnas import TrainSettings, fit
from boundnas.cost import MACs
from boundnas.engine.interruption import Interrupted, interruptible
from boundnas.method.sandwich import Sandwich
from boundnas.models import FAMILIES, paper_space
from boundnas.store.folder import RunFolder

DRAWN = ("mobilenet_v3", "width_only")
"""Families that stand for all without `--full`: that of every kind of choice, and that of one."""


def train(path, family, steps):
    """Train the space, shuffled over eight epochs, with dropout and drop-connect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = paper_space(
            family, 0.125, 8, last_width=16, in_channels=1, dropout=0.2, drop_connect=0.2
        )
    smallest, largest = MACs(model).reach
    settings = TrainSettings(
        steps=steps, batch_size=16, checkpoint_every=steps // 3, start_std=0.3, learning_rate=0.02
    )
    folder = RunFolder.create(path, "name: run\n")
    middle = (smallest + (largest - smallest) / 4, smallest + (largest - smallest) / 2)
    fit(model, few_digits(), cost_range=middle, settings=settings, folder=folder)
    found = files(path)
    newest = max(name.split("/")[1] for name in found if name.startswith("checkpoints/"))
    return {k: v for k, v in found.items() if not k.startswith("checkpoints/") or newest in k}


def stopping_after(step):
    def make(old):
        def run(self, images, labels, number, *rest):
            if number == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return old(self, images, labels, number, *rest)

        return run

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_is_one_to_stop_after(family, tmp_path, full, figure):
    if not full and family not in DRAWN:
        pytest.skip("other families have the same kinds of choices")
    steps = 40 if full else 6
    expected = train(tmp_path / "whole", family, steps)
    for step in range(1, steps) if full else (3,):
        path = tmp_path / str(step)

        def stopped(step=step, path=path):
            with replaced(Sandwich, "step", stopping_after(step)), interruptible():
                train(path, family, steps)

        with pytest.raises(Interrupted):
            stopped()
        assert sorted((path / "checkpoints").iterdir())[-1].name == f"step-{step:08}"
        assert train(path, family, steps) == expected
    figure(f"{family}: stopped after {steps - 1 if full else 1} of {steps} steps, same bytes")
