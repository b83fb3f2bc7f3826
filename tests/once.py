"""What a training begins with, done once for all networks of a process that are built alike.

It takes half of a small run, and asks of the same few networks the same again in every test. With
`--full` it is done as often as by anybody.
"""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from torch import nn

from boundnas import guard
from boundnas.app import pipeline
from boundnas.fit import start, train
from boundnas.supernet import paths

PRIVATE = {*vars(nn.Module()), "_named", "_space", "example"} - {"training"}
"""Attributes that hold parts, which are listed by themselves, or what was computed from others."""


def build(model):
    """All that a network of ours is built of but the values of its weights; else nothing."""
    modules = dict(model.named_modules())
    if not all(type(m).__module__.startswith(("boundnas.", "torch.nn.")) for m in modules.values()):
        return None  # with code of a test
    if any(m._forward_hooks or m._forward_pre_hooks for m in modules.values()):
        return None
    parts = [
        (name, type(m), {k: v for k, v in vars(m).items() if k not in PRIVATE})
        for name, m in modules.items()
    ]
    tensors = [
        (name, t.shape, t.stride(), t.dtype, t.device, t.requires_grad)
        for name, t in (*model.named_parameters(), *model.named_buffers(), ("", model.example))
    ]
    found = repr((parts, tensors))
    return None if " at 0x" in found else found


def once(check):
    """A check of a model that a network passes for all that are built alike."""
    passed = set()

    def checked(model, *settings):
        found = build(model)
        if found is None or (found, settings) not in passed:
            check(model, *settings)
            passed.add((found, settings))

    return checked


def shared(make):
    """What is made of a model, once of each build, from a copy that nobody else has."""
    known = {}

    def made(model):
        found = build(model)
        if found is None:
            return make(model)
        if found not in known:
            own = copy.deepcopy(model)
            known[found] = own, make(own)
        return known[found][1]

    return made


@contextmanager
def once_for_all():
    """Within it networks are checked, and their paths are followed, once for each build."""
    with pytest.MonkeyPatch.context() as patch:
        checked = SimpleNamespace(check=once(guard.check))
        patch.setattr(train, "guard", checked)
        patch.setattr(pipeline, "guard", checked)
        patch.setattr(start, "check_forward", once(start.check_forward))
        patch.setattr(paths, "Paths", shared(paths.Paths))
        yield
