"""What was made of a network, held against it before it is handed out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.convert.calling import called_with
from boundnas.convert.gradients import check_gradient
from boundnas.convert.record import Form
from boundnas.convert.samples import check_alone
from boundnas.elastic.ghost import Ghosted
from boundnas.errors import BoundNASError, ConvertError
from boundnas.nested import mapped
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.supernet.extract import ROUNDING
from boundnas.supernet.inputs import noise, padded, zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.place import first_line
from boundnas.supernet.supernet import Supernet


def failing(model: Supernet, whole: Mapping[nn.Module, Any], samples: int) -> dict[str, str]:
    """Follow the shapes of the extreme networks, and of some that tell all dimensions apart.

    Where one of those fails, each dimension is tried by itself.

    Args:
        model: The supernet.
        whole: What modules that may look at values gave for so many samples.
        samples: So many.

    Returns:
        The dimensions whose smallest option does not work, and why.

    Raises:
        ConvertError: The largest or the smallest network does not work, or one that differs in
            several dimensions.
    """
    empty, stubs = copy.deepcopy((model, dict(whole)))
    for module, form in stubs.items():
        module.forward = partial(_made_of, form)
    empty.to("meta").train()
    inputs, space = zeros(empty, samples), model.space
    wanted, wrong = _followed(empty, inputs, space.largest)
    if wrong:
        raise ConvertError(f"the largest network does not work any more: {wrong}")
    if any(_followed(empty, inputs, arch) != (wanted, "") for arch in _apart(space)):
        return _alone(
            empty, inputs, wanted, lambda arch, _: arch,
            "networks that differ from the largest in several dimensions do not work, and those "
            "that differ in one do; fix some (rules={name: None})",
        )  # fmt: skip
    form, wrong = _followed(empty, inputs, _gated(space.smallest))
    if wrong or form != wanted:
        refusal = f"the smallest network does not work: {wrong or form}"
        return _alone(empty, inputs, wanted, _gated, refusal)
    return {}


def _gated(arch: Architecture, of: Dimension | None = None) -> Architecture:
    """With a weight for every option, as in training, or for those of one dimension alone."""
    dimensions = arch.space.dimensions
    gates = tuple(torch.empty(len(d), device="meta").requires_grad_() for d in dimensions)
    others = frozenset(d for d in dimensions if d is not of) if of is not None else frozenset()
    return arch.carrying(gates=gates, settled=others)


def _alone(
    model: Supernet,
    inputs: Any,
    wanted: Any,
    carrying: Callable[[Architecture, Dimension], Architecture],
    otherwise: str,
) -> dict[str, str]:
    """The dimensions whose smallest option does not work where all others are at their largest.

    Args:
        model: The supernet, without values.
        inputs: A batch for it.
        wanted: The form of what it gives.
        carrying: Makes of an architecture what is tried.
        otherwise: What to say if each of them works.

    Raises:
        ConvertError: Each of them works.
    """
    found, space = {}, model.space
    for i, dimension in enumerate(space.dimensions):
        indices = tuple(0 if i == j else len(d) - 1 for j, d in enumerate(space.dimensions))
        form, wrong = _followed(model, inputs, carrying(Architecture(space, indices), dimension))
        if wrong or form != wanted:
            found[dimension.name] = wrong or f"the network gives {form} in place of {wanted}"
    if not found:
        raise ConvertError(otherwise)
    return found


def _apart(space: SearchSpace) -> Iterator[Architecture]:
    """Some networks by the binary digits of the dimensions' places.

    Of any two dimensions each is once at its smallest where the other is at its largest.
    """
    tops = space.largest.indices
    for digit in range(max(1, (len(space) - 1).bit_length())):
        for side in (0, 1):
            indices = (top if i >> digit & 1 == side else 0 for i, top in enumerate(tops))
            yield Architecture(space, tuple(indices))


def _followed(model: Supernet, inputs: Any, arch: Architecture) -> tuple[Any, str]:
    """The form of what a network gives, or what is wrong with it."""
    try:
        with torch.device("meta"):  # for what forward makes on no device of its own
            return _forms(model(inputs, arch)), ""
    except BoundNASError as error:
        return None, str(error)
    except Exception as error:
        return None, first_line(error)


def _made_of(form: Any, *args: Any, **kwargs: Any) -> Any:
    """Empty tensors of a form, whatever is given."""
    if isinstance(form, Form):
        return torch.empty(form.shape, dtype=form.dtype, device="meta")
    if isinstance(form, tuple):
        return tuple(map(_made_of, form))
    if isinstance(form, dict):
        return {key: _made_of(each) for key, each in form.items()}
    return form


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
        ConvertError: They differ; says by how much. Or what it gives for a sample follows from
            others.
    """
    same = _equal if exact and next(made.parameters()).is_cpu else _near
    with evaluating(model), evaluating(made):
        inputs = noise(made, 3, stream(0, "elasticize"))
        expected = _on_three(type(model).__name__, partial(_given, model, inputs))
        if not all(map(_equal, expected, _given(model, inputs))):
            raise ConvertError(
                f"{type(model).__name__} gives something else every time, in evaluation mode: it "
                "draws random numbers or keeps a state"
            )
        check_alone(model, inputs)
        found = _on_three(type(model).__name__, partial(_given, made, inputs, arch))
        _compare(model, expected, found, same, "on random inputs")
        check_gradient(model, made, arch)
        inputs = padded(made, stream(0, "padded"))
        try:
            expected = _given(model, inputs)
        except Exception:
            return  # of numbers that this network does not take
        _compare(model, expected, _given(made, inputs, arch), same, "on inputs with zeros")


def _on_three(name: str, call: Callable[[], list[Tensor]]) -> list[Tensor]:
    """What is given of three samples, where the example may have had another number."""
    try:
        return call()
    except MemoryError:
        raise
    except Exception as error:  # whatever a forward may raise
        raise ConvertError(
            f"{name} fails on three samples: {first_line(error)}; it may hold the number of "
            "samples as a number of its own, or take it from another axis than the first"
        ) from error


def _given(model: nn.Module, inputs: Any, *arch: Architecture) -> list[Tensor]:
    """All tensors that a network gives, or a supernet in an architecture."""
    copies = mapped(Tensor.clone, inputs)  # which it may change
    return _tensors(model(copies, *arch) if arch else called_with(model, copies))


def _compare(
    model: nn.Module,
    expected: list[Tensor],
    found: list[Tensor],
    same: Callable[[Tensor, Tensor], bool],
    where: str,
) -> None:
    if len(found) == len(expected) and all(map(same, found, expected)):
        return
    pairs = list(zip(found, expected, strict=False))
    apart = [float((a - b).abs().max()) for a, b in pairs if a.shape == b.shape]
    by = f"{max(apart, default=0):.3g}" if len(apart) == len(expected) else "their shapes"
    raise ConvertError(
        f"the largest network computes something else than {type(model).__name__}: they differ by "
        f"{by} {where}. Its forward may read what it changed in "
        "place, depend on the number of samples, or follow another way while it is recorded (as by "
        "isinstance, is or try); a converter may help"
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
