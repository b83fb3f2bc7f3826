"""What ghosts and gates need of 1x1 convolutions and linear layers: products without a graph.

By the small C kernels beside this file, where they were built and take the tensors: slices are
narrow and batches small, where PyTorch's libraries reach a tenth of their speed
(docs/lab-log.md). Everything else goes to PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundnas.elastic import native
from boundnas.elastic.exact import exact, summing


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution by the compiled kernel.

    Args:
        x: A map that the kernels take, shape ``(N, ci, H, W)``.
        weight: A slice of a weight, shape ``(co, ci, 1, 1)``, with rows in one piece.

    Returns:
        Shape ``(N, co, H, W)``, channels-last.
    """
    n, ci, h, w = x.shape
    co = len(weight)
    y = native.empty((n, co, h, w), torch.channels_last)
    native.call("pointwise", x, weight, weight.stride(0), y, n * h * w, ci, co)
    return y


def input_products(
    gradient: Tensor, x: Tensor, weight: Tensor, table: Tensor, scale: float
) -> Tensor:
    """``scale * sum of table[j, i] * x[m, i] * dL/dy[m, o] * weight[o, i]`` of every option ``j``.

    Args:
        gradient: ``dL/dy``, shape ``(N, co)`` or ``(N, co, H, W)``; ``m`` is all but the channels.
        x: Inputs, shape ``(N, ci)`` or ``(N, ci, H, W)``.
        weight: A slice of a weight, shape ``(co, ci)`` or ``(co, ci, 1, 1)``.
        table: Which option contains which input, shape ``(d, ci)``.
        scale: What all is multiplied by.

    Returns:
        Shape ``(d,)``.
    """
    if not (native.takes(gradient) and native.takes(x) and weight.stride(1) == 1):
        products = exact(_rows(gradient).T @ _rows(x)) * weight.flatten(1)
        return _of_options(table, products.sum(0)) * scale
    z = native.empty((len(table),))
    co, ci = weight.shape[:2]
    native.call(
        "input_products", gradient, x, weight, weight.stride(0), table, table.stride(0), z,
        x.numel() // ci, co, ci, len(table), scale,
    )  # fmt: skip
    return z


def weight_products(weight: Tensor, gradient: Tensor, table: Tensor, axes: Sequence[int]) -> Tensor:
    """``sum of table[j, i] * weight * dL/dweight`` of every option ``j``.

    Args:
        weight: Of a layer.
        gradient: ``dL/dweight``.
        table: Which option contains which entries along ``axes``, shape ``(d, entries)``.
        axes: The axes of ``weight`` that the options range over.

    Returns:
        Shape ``(d,)``.
    """
    rows, (options, columns) = len(weight), table.shape
    # The options range over all of a row.
    whole = 0 not in axes and weight.numel() == rows * columns
    if not (whole and native.takes_flat(weight) and native.takes_flat(gradient)):
        others = [axis for axis in range(weight.dim()) if axis not in axes]
        return _of_options(table, (exact(weight) * exact(gradient)).sum(others).flatten())
    z = native.empty((options,))
    native.call(
        "weight_products", weight, gradient, table, table.stride(0), z, rows, columns, options
    )
    return z


def inner_product(gradient: Tensor, y: Tensor, scale: float, z: Tensor) -> None:
    """Set the number ``z`` to ``scale * <dL/dy, y>``, for maps or rows."""
    if not (native.takes(gradient) and native.takes(y)):
        z.copy_((exact(gradient) * exact(y)).sum() * scale)
        return
    native.call("inner_product", gradient, y, z, y.numel(), scale)


def _of_options(table: Tensor, products: Tensor) -> Tensor:
    """The sum over what every option contains."""
    with summing(products):
        return table.to(products) @ products


def _rows(x: Tensor) -> Tensor:
    """The pixels of a map as rows of channels; rows as they are."""
    return x.movedim(1, -1).flatten(0, -2)
