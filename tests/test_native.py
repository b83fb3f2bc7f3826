"""The way to the compiled kernels: nothing else's memory is read or written, whatever is passed.

And kernels of every kind of processor: each computes what PyTorch's own do (in the tests of layers,
with those of this machine) and the same with shorter vectors.
"""

import os
import subprocess
import sys

import pytest
import torch
from tests.small import default_type
from tests.spaces import SPACES, images, supernet
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.guard.learnable import check_learnable
from boundnas.randomness import stream

pytestmark = pytest.mark.skipif(not native.available(), reason="installed without a C compiler")

N, H, W, C, M, D = 3, 4, 5, 6, 7, 2


def a_map(channels, height=H, width=W):
    x = torch.randn(N, channels, height, width, generator=stream(0, f"map {channels}"))
    return x.contiguous(memory_format=torch.channels_last)


def flat(*size):
    return torch.randn(size, generator=stream(0, f"flat {size}"))


def slice_of(rows, columns):
    """Rows of a wider matrix, and how far they lie apart."""
    return flat(rows, columns + 3)[:, :columns], columns + 3


KERNELS = {
    "depthwise": lambda c=C: (a_map(c), flat(c, 1, 3, 3), a_map(c, 2, 3), N, H, W, c, 2, 3),
    "depthwise_weight_gradient": lambda c=C: (a_map(c), a_map(c), flat(c, 1, 5, 5), N, H, W, c, 1),
    "batch_moments": lambda c=C: (a_map(c), flat(c), flat(c), N * H * W, c),
    "batch_norm_forward": lambda c=C: (
        a_map(c), flat(c), flat(c), a_map(c), flat(c), flat(c), N * H * W, c, 1e-5, 2,
    ),
    "batch_norm_backward": lambda c=C: (
        a_map(c), a_map(c), flat(c), flat(c), flat(c), flat(c), a_map(c), flat(c), flat(c),
        N * H * W, c, 1,
    ),
    "activation_products": lambda c=C: (
        a_map(c), a_map(c), flat(c), flat(c), flat(c), flat(c), flat(1), flat(1), N * H * W, c, 2.0,
    ),
    "scale_gradients": lambda c=C: (
        a_map(c), a_map(c), flat(N, c), a_map(c), flat(N, c), N, H * W, c,
    ),
    "pointwise": lambda c=C: (a_map(c), *slice_of(M, c), a_map(M), N * H * W, c, M),
    "input_products": lambda c=C: (
        a_map(M), a_map(c), *slice_of(M, c), *slice_of(D, c), flat(D), N * H * W, M, c, D, 1.0,
    ),
    "weight_products": lambda c=C: (flat(M, c), flat(M, c), *slice_of(D, c), flat(D), M, c, D),
    "inner_product": lambda c=C: (a_map(c), a_map(c), flat(1), N * H * W * c, 1.0),
}  # fmt: skip

FAULTS = {
    "double precision": lambda x: x.double(),
    "half precision": lambda x: x.half(),
    "whole numbers of the same size": lambda x: x.int(),
    "no memory": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "one row less": lambda x: x[:-1],
    "one row more": lambda x: torch.cat([x, x[:1]]),
    "empty": lambda x: x.flatten()[:0],
    "turned around": lambda x: x.mT if x.dim() > 1 else x[::2],
    "not given": lambda x: None,
    "a number": lambda x: 3,
    "a list": lambda x: x.tolist(),
}


def tensors_of(arguments):
    return [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]


@pytest.mark.parametrize("name", KERNELS)
def test_the_table_has_what_the_kernels_take(name):
    native.call(name, *KERNELS[name]())


KINDS = {"avx512": "AVX512", "avx2": "AVX2", "default": "DEFAULT"}
"""What ATEN_CPU_CAPABILITY asks for, and what PyTorch then says that it uses."""


def computed():
    """All tensors of all kernels after a call, of few channels and of more than any register."""
    for channels in (C, 37):
        for name, arguments in KERNELS.items():
            values = arguments(channels)
            ends = range(3) if name.startswith("batch_norm") else values[-1:]
            for end in ends:  # every activation
                native.call(name, *values[:-1], end)
                yield from (v.clone() for v in values if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_every_kind_of_processor_compute_the_same(kind, tmp_path):
    program = (
        "import sys, torch; from tests.test_native import computed; torch.set_num_threads(2)\n"
        "found = [torch.backends.cpu.get_cpu_capability(), *computed()]\n"
        "torch.save(found, sys.argv[1])"
    )
    best = torch.backends.cpu.get_cpu_capability()
    if list(KINDS.values()).index(KINDS[kind]) < list(KINDS.values()).index(best):
        pytest.skip(f"PyTorch knows this machine as {best}")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": kind}
    path = tmp_path / "computed"
    subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=True)
    used, *found = torch.load(path, weights_only=True)
    assert used == KINDS[kind]
    for one, other in zip(found, computed(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def test_every_kernel_is_in_the_table():
    assert set(KERNELS) == {n for n in dir(native._kernels) if not n.startswith("_")}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", KERNELS)
def test_a_tensor_that_is_not_what_a_kernel_reads_is_refused(name, fault):
    arguments = KERNELS[name]()
    for i in tensors_of(arguments):
        if fault == "not given" and name == "activation_products" and i in (6, 7):
            continue  # a result that is not wanted
        if arguments[i].numel() == 1 and fault in ("with gaps", "turned around"):
            continue  # one number has neither
        before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        wrong = [FAULTS[fault](a) if j == i else a for j, a in enumerate(arguments)]
        with pytest.raises(RuntimeError, match=rf"^kernel {name}: argument {i + 1} (is|does)"):
            native.call(name, *wrong)
        for j in tensors_of(arguments):
            assert torch.equal(arguments[j], before[j]), "something was written"


@pytest.mark.parametrize("name", KERNELS)
def test_sizes_that_ask_for_more_memory_are_refused(name):
    arguments = KERNELS[name]()
    numbers = [i for i, a in enumerate(arguments) if isinstance(a, int)]
    for i in numbers:
        if name.startswith("batch_norm") and i == len(arguments) - 1:
            continue  # the number of a function
        wrong = [a + 4 if j == i else a for j, a in enumerate(arguments)]
        with pytest.raises(RuntimeError, match=f"^kernel {name}: argument"):
            native.call(name, *wrong)


def test_more_or_fewer_arguments_are_refused():
    with pytest.raises(TypeError, match="kernel batch_moments: expected 6 arguments, found 5"):
        native.call("batch_moments", *KERNELS["batch_moments"]()[:-1])
    with pytest.raises(TypeError, match="must be real number"):
        native.call("inner_product", *KERNELS["inner_product"]()[:-1], "many")


def gradients(model, x, seed):
    """Of weights and gates of a drawn architecture with its gates."""
    arch = model.space.sample(stream(seed, "architecture"))
    gates = tuple(
        F.one_hot(torch.tensor(i), len(d)).to(x).requires_grad_()
        for d, i in zip(arch.space.dimensions, arch.indices, strict=True)
    )
    arch = arch.plain.carrying(gates=gates, ghost_fraction=0.5)
    loss = model(x, arch).square().sum()
    inputs = [*gates, *model.parameters()]
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", SPACES)
def test_the_default_type_changes_no_gradient(name, kind):
    model = supernet(name)
    x = images(model, 6)
    expected = gradients(model, x, 0)
    with default_type(kind):
        check_learnable(model)
        for found, right in zip(gradients(model, x, 0), expected, strict=True):
            assert found.dtype == torch.float32
            assert torch.equal(found, right)
