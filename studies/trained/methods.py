"""What is compared: a family from trained weights, pruning, and training from scratch.

All train on the same batches in the same way; times are CPU seconds of the process.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import boundnas as bn
from boundnas.data import ImageData, TrainingOrder
from boundnas.data.source import Source, batches
from boundnas.errors import RunError
from studies.trained.networks import NETWORKS

CPU = torch.device("cpu")

BUDGETS = (0.25, 0.5, 0.75)
"""Parts of the MACs of the network that is begun with."""


@dataclass(frozen=True)
class Setting:
    """How long and how everything trains.

    Args:
        network: A name in `NETWORKS`.
        data: The images.
        seed: Of weights and batches.
        steps: Of the plain training.
        family_steps: Of the supernet.
        batch_size: Images of a batch.
        search: Of the front.
    """

    network: str
    data: ImageData
    seed: int
    steps: int
    family_steps: int
    batch_size: int
    search: bn.SearchSettings

    def built(self, width: int | None = None) -> nn.Module:
        """The network of a width, the whole one by default, with the weights of the seed."""
        make, widths = NETWORKS[self.network]
        torch.manual_seed(self.seed)
        return make(width or widths[-1])


def macs_of(net: nn.Module) -> int:
    """Multiply-accumulates of one image."""
    math = sdpa_kernel(SDPBackend.MATH)  # counts attention's products
    with math, FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, 1, 28, 28))
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def accuracy(net: nn.Module, data: ImageData, source: Source) -> float:
    """Share of the images of a split that a network names rightly."""
    net.eval()
    right = 0
    for images, labels in batches(source, torch.arange(len(source)), 256):
        right += int((net(data.ready(images, CPU)).argmax(1) == labels).sum())
    return right / len(source)


def train(net: nn.Module, setting: Setting, seconds: float | None, peak: float) -> int:
    """Train plainly: AdamW, warm-up over a tenth, then a cosine to zero.

    Args:
        net: Changed in place.
        setting: Its ``steps`` count where ``seconds`` is none.
        seconds: CPU time instead; the step size follows the part of it that is used up.
        peak: Largest step size.

    Returns:
        The steps made.
    """
    optimizer = torch.optim.AdamW(_decayed(net), lr=peak)
    order = TrainingOrder(len(setting.data.train), setting.batch_size, setting.seed)
    begun, step = time.process_time(), 0
    net.train()
    for step in itertools.count():
        done = step / setting.steps
        if seconds is not None:
            done = (time.process_time() - begun) / seconds if seconds > 0 else 1.0
        if done >= 1:
            return step
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = peak * _rate(done)
        images, labels = next(setting.data.training(order, step, step + 1, slice(None)))
        optimizer.zero_grad()
        F.cross_entropy(net(setting.data.ready(images, CPU)), labels).backward()
        optimizer.step()
    return step


def _rate(done: float) -> float:
    if done < 0.1:
        return 0.01 + done / 0.1 * 0.99
    return 0.5 * (1 + float(torch.cos(torch.tensor((done - 0.1) / 0.9 * torch.pi))))


def _decayed(net: nn.Module) -> list[dict[str, Any]]:
    """Matrices and kernels decay, biases and normalizations do not."""
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def family(net: nn.Module, setting: Setting) -> dict[str, Any]:
    """Elasticize the trained network, fit with learned boundaries, search; validation chooses."""
    begun, whole = time.process_time(), macs_of(net)
    model = bn.elasticize(net, torch.zeros(1, 1, 28, 28))
    budgets = (0.8 * BUDGETS[0] * whole, 1.0 * whole)
    settings = bn.TrainSettings(steps=setting.family_steps, batch_size=setting.batch_size)
    run = bn.fit(model, setting.data, cost_range=budgets, settings=settings, seed=setting.seed)
    front = bn.search(run, setting.search)
    chosen = {}
    for share in BUDGETS:
        with suppress(RunError):  # the front has none so small
            chosen[share] = front.best(macs=share * whole)
    return {
        "seconds": time.process_time() - begun,
        "report": str(model.report).splitlines()[-1],
        **{str(share): [n.macs, n.validation, n.test] for share, n in chosen.items()},
    }


def pruned(net: nn.Module, share: float, setting: Setting, seconds: float) -> dict[str, Any]:
    """Magnitude pruning by torch-pruning to a share of the MACs, then fine-tuning."""
    torch_pruning = import_module("torch_pruning")  # a package of the study alone
    begun, net = time.process_time(), copy.deepcopy(net)
    limit, example = share * macs_of(net), torch.zeros(1, 1, 28, 28)
    pruner = torch_pruning.pruner.MetaPruner(
        net, example, importance=torch_pruning.importance.MagnitudeImportance(p=1),
        global_pruning=True, iterative_steps=400, pruning_ratio=1.0, max_pruning_ratio=0.9,
        ignored_layers=[net.head], num_heads={m.qkv: m.num_heads for m in _attentions(net)},
    )  # fmt: skip
    while macs_of(net) > limit:
        pruner.step()
        for module in _attentions(net):
            module.head_dim = module.qkv.out_features // (3 * module.num_heads)
    steps = train(net, setting, seconds - (time.process_time() - begun), 5e-4)
    return {"steps": steps, **_scores(net, setting)}


def _attentions(net: nn.Module) -> list[Any]:
    return [module for module in net.modules() if hasattr(module, "qkv")]


def scratch(share: float, setting: Setting, seconds: float) -> dict[str, Any]:
    """The widest uniform network within a share of the MACs, trained from scratch."""
    limit = share * macs_of(setting.built())
    width = max(w for w in NETWORKS[setting.network][1] if macs_of(setting.built(w)) <= limit)
    net = setting.built(width)
    steps = train(net, setting, seconds, 2e-3)
    return {"steps": steps, "width": width, **_scores(net, setting)}


def _scores(net: nn.Module, setting: Setting) -> dict[str, Any]:
    data = setting.data
    scores = [accuracy(net, data, source) for source in (data.validation, data.test)]
    return {"macs": macs_of(net), "validation": scores[0], "test": scores[1]}


Measured = Callable[[], dict[str, Any]]


def everything(
    setting: Setting, weights: Path, keep: Callable[[str, Measured], dict[str, Any]]
) -> None:
    """All that is measured of one network and seed.

    Args:
        setting: What and how.
        weights: File of the plainly trained weights, which is written with them.
        keep: Gives what was measured under a name, or measures and keeps it.
    """
    net = setting.built()

    def plainly() -> dict[str, Any]:
        begun = time.process_time()
        train(net, setting, None, 2e-3)
        save_model(net, weights)
        return {"seconds": time.process_time() - begun, **_scores(net, setting)}

    plain = keep("plain", plainly)
    load_model(net, weights)
    found = keep("family", lambda: family(copy.deepcopy(net), setting))
    third = found["seconds"] / len(BUDGETS)
    alone = (plain["seconds"] + found["seconds"]) / len(BUDGETS)
    for share in BUDGETS:
        keep(f"pruned-{share}", partial(pruned, net, share, setting, third))
        keep(f"scratch-{share}", partial(scratch, share, setting, alone))
