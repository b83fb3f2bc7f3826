"""Whether the masked form of a supernet computes what its slices do.

With masks every option is computed and multiplied by its gate (`boundnas.space.Pass`), so that one
form serves all architectures. Elastic layers know it; a `forward` that looks up the architecture by
itself, or counts channels, does not. So both are compared, in double precision.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from boundnas.errors import BoundNASError
from boundnas.nested import leaves
from boundnas.randomness import stream
from boundnas.space import Architecture
from boundnas.supernet.inputs import noise
from boundnas.supernet.modes import train
from boundnas.supernet.supernet import Supernet

SAMPLES, RANDOM = 3, 4
TOLERANCE, FLOOR = 1e-6, 1e-9
"""Of values, and of the gradients of gates and weights, relative to their norm."""


def obstacle(model: Supernet) -> str | None:
    """Why a supernet cannot be trained by masks; none where it can.

    Compared are the values and all gradients of the smallest, the largest and some random networks,
    on a copy of the model on the CPU.

    Args:
        model: The supernet.
    """
    try:
        own = copy.deepcopy(model).cpu().double()
        train(own)
        generator = stream(0, "masking")
        x = noise(own, SAMPLES, generator)
        archs = [own.space.smallest, own.space.largest]
        archs += [own.space.sample(generator) for _ in range(RANDOM)]
        for arch in archs:
            pairs = zip(
                _gradients(own, x, arch, False), _gradients(own, x, arch, True), strict=True
            )
            for (what, sliced), (_, masked) in pairs:
                scale, error = float(sliced.norm()), float((masked - sliced).norm())
                if not error <= TOLERANCE * scale + FLOOR:
                    return f"its {what} by masks differ from those of its slices, by {error:.1e}"
    except (BoundNASError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _gradients(
    model: Supernet, x: Tensor, arch: Architecture, masked: bool
) -> Iterator[tuple[str, Tensor]]:
    """Outputs of a network, and the gradients of their weighted sum."""
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).double().requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    form = (arch.space.largest if masked else arch).carrying(gates=gates, masked=masked)
    outputs = [y for _, y in leaves(model(x, form)) if isinstance(y, Tensor)]
    found = torch.cat([y.flatten() for y in outputs])
    wanted = [p for p in model.parameters() if p.requires_grad]
    weights = torch.linspace(1, 2, len(found)).to(found)
    gradients = torch.autograd.grad(
        found.sin() @ weights, [*gates, *wanted], allow_unused=True, materialize_grads=True
    )
    yield "outputs", found.detach()
    yield "gradients of options", torch.cat(gradients[: len(gates)])
    yield "gradients of weights", torch.cat([g.flatten() for g in gradients[len(gates) :]])
