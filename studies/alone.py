"""A network by itself, trained as `boundnas.fit` trains the weights of a supernet."""

from __future__ import annotations

import torch
from torch import nn

import boundnas as bn
from boundnas.data import Samples, TrainingOrder
from boundnas.fit.recipe import Recipe
from boundnas.fit.schedule import steps_of
from boundnas.supernet import modes


def train_alone(
    model: bn.Supernet, data: Samples, task: bn.tasks.Task, settings: bn.TrainSettings, seed: int
) -> None:
    """Train the largest network of a supernet: one pass a step, and nothing else.

    Batches, optimizer, step sizes and clipping are those of a supernet of these settings.

    Args:
        model: Changed in place, and left in evaluation mode.
        data: What it trains on.
        task: What it is to do.
        settings: How long and how.
        seed: Of the batches; the initial weights are the caller's.
    """
    order = TrainingOrder(len(data.train), settings.batch_size, seed)
    steps = steps_of(settings, len(data.train))
    parameters = list(model.parameters())
    optimizer = Recipe().optimizer_of(parameters, settings)
    schedule = Recipe().schedule_of(optimizer, settings, steps)
    modes.train(model)
    for inputs, targets in data.training(order, 0, steps, slice(None)):
        optimizer.zero_grad()
        outputs = model(data.ready(inputs, torch.device("cpu")), model.space.largest)
        task.loss(outputs, targets).backward()
        nn.utils.clip_grad_value_(parameters, float(settings.clip_value or "inf"))
        optimizer.step()
        schedule.step()
    modes.evaluate(model)
