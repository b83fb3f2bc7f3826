"""What was made of a network, held against it before it is handed out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.convert.trace import Form, called_with
from boundnas.elastic.ghost import Ghosted
from boundnas.errors import BoundNASError, ConvertError
from boundnas.nested import mapped
from boundnas.randomness import stream
from boundnas.space import Architecture
from boundnas.supernet.extract import ROUNDING
from boundnas.supernet.inputs import noise, zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.place import first_line
from boundnas.supernet.supernet import Supernet


def check_corners(model: Supernet, whole: Mapping[nn.Module, Any], samples: int) -> None:
    """Follow the shapes of the extreme networks, and of some that tell all dimensions apart.

    Args:
        model: The supernet.
        whole: What modules that may look at values gave for so many samples.
        samples: So many.

    Raises:
        ConvertError: One fails, or gives another form than the largest.
    """
    empty, stubs = copy.deepcopy((model, dict(whole)))
    for module, form in stubs.items():
        module.forward = partial(_made_of, form)
    empty.to("meta").train()
    inputs, wanted = zeros(empty, samples), None
    gates = tuple(
        torch.empty(len(d), device="meta", requires_grad=True) for d in model.space.dimensions
    )
    for arch in _corners(model):
        if arch == model.space.smallest:
            arch = arch.carrying(gates=gates)
        try:
            found = _forms(empty(inputs, arch))
        except BoundNASError as error:
            raise _unlike(arch, str(error)) from error
        except Exception as error:
            raise _unlike(arch, first_line(error)) from error
        wanted = wanted or found
        if found != wanted:
            raise _unlike(arch, f"it gives {found}, and the largest {wanted}")


def _made_of(form: Any, *args: Any, **kwargs: Any) -> Any:
    """Empty tensors of a form, whatever is given."""
    if isinstance(form, Form):
        return torch.empty(form.shape, dtype=form.dtype, device="meta")
    if isinstance(form, tuple):
        return tuple(map(_made_of, form))
    if isinstance(form, dict):
        return {key: _made_of(each) for key, each in form.items()}
    return form


def _unlike(arch: Architecture, what: str) -> ConvertError:
    smaller = [
        f"{d.name}={d.choices[i]}"
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
        if i < len(d) - 1
    ]
    shown = ", ".join(smaller[:8]) + (f" and {len(smaller) - 8} more" if smaller[8:] else "")
    return ConvertError(
        f"the network with {shown or 'everything at its largest'} does not work: {what}. This "
        "is a fault of a rule of BoundNAS; keep what it names fixed (rules={name: None})"
    )


def _corners(model: Supernet) -> Iterator[Architecture]:
    """The largest, the smallest, and some by the binary digits of the dimensions' places.

    Of any two dimensions each is once at its smallest where the other is at its largest.
    """
    space = model.space
    yield space.largest
    yield space.smallest
    tops = space.largest.indices
    for digit in range((len(space) - 1).bit_length()):
        for side in (0, 1):
            indices = (top if i >> digit & 1 == side else 0 for i, top in enumerate(tops))
            yield Architecture(space, tuple(indices))


def _forms(output: Any) -> Any:
    if isinstance(output, Ghosted):
        raise ConvertError("its output has a searched width")
    if isinstance(output, Tensor):
        return tuple(output.shape), output.dtype
    if isinstance(output, tuple | list):
        return tuple(map(_forms, output))
    if isinstance(output, dict):
        return {key: _forms(value) for key, value in output.items()}
    return output


@torch.no_grad()
def check_same(model: nn.Module, made: Supernet, arch: Architecture, exact: bool) -> None:
    """Compare the largest network with the one that it was made of.

    Args:
        model: That one; it is run, in evaluation mode.
        made: The supernet.
        arch: Its largest architecture, with the statistics that the network came with.
        exact: Whether it must be the same bit for bit, on the CPU.

    Raises:
        ConvertError: They differ; says by how much.
    """
    inputs = noise(made, 3, stream(0, "elasticize"))
    with evaluating(model), evaluating(made):
        expected = _tensors(called_with(model, mapped(Tensor.clone, inputs)))
        again = _tensors(called_with(model, mapped(Tensor.clone, inputs)))
        found = _tensors(made(mapped(Tensor.clone, inputs), arch))
    if not all(map(_equal, expected, again)):
        raise ConvertError(
            f"{type(model).__name__} gives something else every time, in evaluation mode: it draws "
            "random numbers or keeps a state"
        )
    same = _equal if exact and expected[0].is_cpu else _near
    if len(found) != len(expected) or not all(map(same, found, expected)):
        apart = [float((a - b).abs().max()) for a, b in zip(found, expected, strict=False)]
        raise ConvertError(
            f"the largest network computes something else than {type(model).__name__}: they "
            f"differ by {max(apart, default=float('inf')):.3g} on random inputs. Its forward may "
            "read what it changed in place, depend on the number of samples, or follow another "
            "way while it is recorded (as by isinstance or try); a converter may help"
        )


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, tuple | list):
        return [x for part in output for x in _tensors(part)]
    if isinstance(output, dict):
        return [x for part in output.values() for x in _tensors(part)]
    return []


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = float(b.abs().nan_to_num(0, 0, 0).max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=ROUNDING * scale, equal_nan=True)
