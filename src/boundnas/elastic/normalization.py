"""Elastic batch normalization, with the activation that may follow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas.elastic import native
from boundnas.elastic.activation import (
    COMPILED,
    activated,
    check_functions,
    kernel_name,
    plain_activation,
)
from boundnas.elastic.convolution import Convolution
from boundnas.elastic.ghost import join, part, split
from boundnas.elastic.layer import ElasticLayer, frozen
from boundnas.elastic.width import active, others
from boundnas.errors import CalibrationError, SpaceError
from boundnas.space import Architecture, Setting, Value, Width, check_sizes, choices, largest
from boundnas.space.polynomial import Polynomial, amount

_CODES = {function: code for code, function in enumerate((None, *COMPILED))}
"""The kernels' numbers of what follows."""


class BatchNorm(ElasticLayer):
    """Batch normalization over a searchable width.

    It has no running statistics: a supernet's would belong to no network in it. In training every
    pass is normalized by its own batch; for evaluation the statistics travel with the
    architecture (see `boundnas.calibrate`).

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        activation: The function that follows, as of `Activation`, or none. ReLU, Swish and the
            choice between them cost little time of their own in training as part of this layer.
        affine: Whether channels are scaled and shifted by weights.

    Shape:
        ``(N, C, …)`` to the same.
    """

    plain_layer: ClassVar[Callable[..., nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]]
    """Of torch, with as many spatial axes."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        channels: Width,
        eps: float = 1e-5,
        activation: Setting | None = None,
        affine: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, channels=channels)
        check_eps(type(self).__name__, eps)
        if activation is not None:
            check_functions(activation)
        self.channels, self.eps, self.activation = channels, eps, activation
        hold_affine(self, largest(channels), affine)
        names = [] if activation is None else [kernel_name(c) for c in choices(activation)]
        self._is_compiled = None not in names and len({*names}) == len(names)
        """Whether the kernels know what follows."""

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Normalize the active channels, and ghosts with their own statistics.

        Raises:
            CalibrationError: In evaluation, with an architecture that carries no statistics.
        """
        c = arch.size(self.channels)
        x, ghost = split(x)
        self.check_width(x, c)
        statistics = arch.statistics(self.name, x)
        if statistics is None and not self.training:
            raise CalibrationError(
                f"{self.name}: evaluation needs BatchNorm statistics of this very architecture, "
                "and it carries none; use the one that calibrate(model, arch, images) returns"
            )
        y = self._normalize(x, *self._affine(arch), statistics, arch)
        if ghost is not None:
            with torch.no_grad():
                both = (others(p, self.channels, arch) for p in (self.weight, self.bias))
                weight, bias = map(aligned, both)
                ghost = self._normalize(ghost, weight, bias, None, arch)
        return join(y, ghost)

    def _affine(self, arch: Architecture) -> tuple[Tensor, Tensor]:
        """Scale and shift of the active channels."""
        return active(self.weight, self.channels, arch), active(self.bias, self.channels, arch)

    def folded(self, conv: Convolution, x: Tensor, arch: Architecture) -> Tensor:
        """``self(conv(x, arch), arch)`` in evaluation as one convolution, equal but for rounding.

        Args:
            conv: The convolution before, of this layer's channels.
            x: Its input.
            arch: An architecture that carries statistics.
        """
        statistics = arch.statistics(self.name, x)
        assert statistics is not None, f"{self.name}: nothing to fold"
        (mean, var), (weight, bias) = statistics, self._affine(arch)
        scale = weight * (var + self.eps).rsqrt()
        return self._activate(conv.scaled(x, arch, scale, bias - mean * scale), arch)

    def _normalize(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor] | None,
        arch: Architecture,
    ) -> Tensor:
        if statistics is None and _compiled(x) and x.numel() > x.shape[1]:
            every = arch.masked and self.activation is not None
            follows = self.activation if self._is_compiled and not every else None
            function = None if follows is None else kernel_name(arch.value(follows))
            if not torch.is_grad_enabled():
                y = _normalized(x, weight, bias, self.eps, function)[0]
            else:
                gate = None if follows is None else arch.gate(follows)
                options = () if follows is None else tuple(map(kernel_name, choices(follows)))
                y = _BatchNorm.apply(
                    x, weight, bias, gate, self.eps, function, options, arch.ghost_fraction
                )
            return y if follows is not None else self._activate(y, arch)
        mean, var = statistics or (None, None)
        scale, shift = (weight, bias) if self._parameters else (None, None)  # ones round otherwise
        if mean is not None and var is not None and mean.dim() > 1:
            y = _by_parts(x, mean, var, scale, shift, self.eps)
        else:
            y = F.batch_norm(x, mean, var, scale, shift, training=mean is None, eps=self.eps)
        return self._activate(y, arch)

    def _activate(self, y: Tensor, arch: Architecture) -> Tensor:
        if self.activation is None:
            return y
        return activated(y, self.activation, arch, inplace=True)

    def macs(self, positions: int) -> Polynomial:
        """None: it folds into the layer before."""
        return amount(0)

    def parameter_count(self) -> Polynomial:
        """A scale and a shift per channel, if it has them."""
        return 2 * amount(self.channels) if self._parameters else amount(0)

    def plain(self, arch: Architecture) -> nn.Module:
        """The layer of torch with the statistics the architecture carries."""
        statistics = arch.statistics(self.name, self.weight)
        if statistics is None:
            raise CalibrationError(
                f"{self.name}: a network with BatchNorm can be extracted only with its statistics; "
                "use the architecture that calibrate(model, arch, images) returns"
            )
        affine = bool(self._parameters)
        plain = self.plain_layer(arch.size(self.channels), eps=self.eps, affine=affine)
        if affine:
            plain.weight, plain.bias = map(frozen, self._affine(arch))
        plain.running_mean, plain.running_var = (s.clone() for s in statistics)
        if self.activation is None:
            return plain.eval()
        function = plain_activation(self.activation, arch)
        if isinstance(function, nn.ReLU):
            function.inplace = True  # its gradient, unlike Swish's, does not need the input
        return nn.Sequential(plain, function).eval()


def check_eps(owner: str, eps: float | None) -> None:
    """Refuse what makes no variance positive.

    Raises:
        SpaceError: A negative number, or none.
    """
    if eps is not None and not 0 <= eps < math.inf:
        raise SpaceError(
            f"{owner}: eps is added to a variance, a number of at least 0, found {eps}"
        )


def hold_affine(layer: nn.Module, channels: int, affine: bool) -> None:
    """Give a norm its scale and shift; of one without they are ones and zeros, and no weights."""
    for name, made in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
        if affine:
            layer.register_parameter(name, nn.Parameter(made))
        else:
            layer.register_buffer(name, made, persistent=False)


class BatchNorm1d(BatchNorm):
    """A `BatchNorm` of sequences or of features, of shape ``(N, C, L)`` or ``(N, C)``."""

    takes, plain_layer = "(N, C, L)", nn.BatchNorm1d

    def check_width(self, x: Tensor, expected: int) -> None:
        """As of any layer; features may lack the axis of positions."""
        super().check_width(x[..., None] if x.dim() == 2 else x, expected)


class BatchNorm2d(BatchNorm):
    """A `BatchNorm` of images, of shape ``(N, C, H, W)``."""

    plain_layer = nn.BatchNorm2d


class BatchNorm3d(BatchNorm):
    """A `BatchNorm` of volumes, of shape ``(N, C, D, H, W)``."""

    takes, plain_layer = "(N, C, D, H, W)", nn.BatchNorm3d


def aligned(x: Tensor) -> Tensor:
    """Scales or shifts that begin where cuDNN reads them, at a multiple of 16 bytes.

    In training on channels-last maps it reads 16 bytes at a time wherever they begin, and a part of
    a tensor may begin elsewhere: "misaligned address" (PyTorch issue 195186).
    """
    return x.clone() if x.data_ptr() % 16 and not x.is_cpu else x


def _by_parts(
    x: Tensor,
    means: Tensor,
    variances: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """``F.batch_norm`` in evaluation of equal parts of a batch, each with a row of statistics."""
    y, none = torch.empty_like(x), x.new_empty(0)
    rows = zip(x.chunk(len(means)), y.chunk(len(means)), means, variances, strict=True)
    for part_, result, mean, var in rows:
        torch.ops.aten.native_batch_norm.out(
            part_, weight, bias, mean, var, False, 0.0, eps,
            out=result, save_mean=none, save_invstd=none,
        )  # fmt: skip
    return y


def _compiled(x: Tensor) -> bool:
    """Whether the kernels normalize a map: of an image, whose layout they know."""
    return x.dim() == 4 and native.takes(x)


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of a batch, shape ``(C,)`` each, no gradient.

    Args:
        x: Shape ``(N, C, …)``; of half precision, as under autocast, it is taken to float32.
    """
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not _compiled(x):
        var, mean = torch.var_mean(x, (0, *range(2, x.dim())), correction=0)
        return mean, var
    c = x.shape[1]
    mean, var = native.empty((c,)), native.empty((c,))
    native.call("batch_moments", x, mean, var, x.numel() // c, c)
    return mean, var


def _normalized(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, function: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized and activated; each channel's mean and inverse deviation, by the kernels."""
    c = x.shape[1]
    y, mean, inverse = torch.empty_like(x), native.empty((c,)), native.empty((c,))
    native.call(
        "batch_norm_forward", x, weight, bias, y, mean, inverse, x.numel() // c, c, eps,
        _CODES[function],
    )  # fmt: skip
    return y, mean, inverse


def activation_products(
    x: Tensor,
    gradient: Tensor,
    normalization: Sequence[Tensor],
    options: Sequence[Value],
    scale: float,
) -> Tensor:
    """``scale * <dL/dy, f_j(t)>`` of every activation ``f_j`` of a normalized map ``t``.

    Args:
        x: What was normalized, shape ``(N, C, H, W)``, or a leading part of the batch.
        gradient: ``dL/dy`` of the same samples.
        normalization: Weight, bias, mean and inverse deviation, shape ``(C,)`` each.
        options: Names of the activations.
        scale: What the sums are multiplied by.

    Returns:
        Shape ``(d,)``.
    """
    c, z = x.shape[1], native.empty((len(options),))
    results = dict(zip(options, z.unbind(), strict=True))
    native.call(
        "activation_products", x, gradient, *normalization, *map(results.get, COMPILED),
        x.numel() // c, c, scale,
    )  # fmt: skip
    return z


class _BatchNorm(torch.autograd.Function):
    """Normalize by the batch and activate, by the compiled kernels.

    The backward pass gives every option of a searched activation its ``<dL/dy, f_j(t)>``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        gate: Tensor | None,
        eps: float,
        function: str | None,
        options: Sequence[Value],
        fraction: float,
    ) -> Tensor:
        y, mean, inverse = _normalized(x, weight, bias, eps, function)
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.function, ctx.options, ctx.fraction = function, options, fraction
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, *normalization = ctx.saved_tensors
        c = x.shape[1]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        products = None
        if ctx.needs_input_grad[3]:
            shared = part(gradient, ctx.fraction)
            products = activation_products(
                x[: len(shared)], shared, normalization, ctx.options, len(x) / len(shared)
            )
        dx, dweight, dbias = torch.empty_like(x), native.empty((c,)), native.empty((c,))
        native.call(
            "batch_norm_backward", x, gradient, *normalization, dx, dweight, dbias,
            x.numel() // c, c, _CODES[ctx.function],
        )  # fmt: skip
        return dx, dweight, dbias, products, None, None, None, None
