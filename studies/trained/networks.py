"""The networks that are trained plainly: ResNet-20 and a small vision transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, by a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_norm(inputs, outputs, 3, stride)
        self.second = _conv_norm(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    rest = [_Block(outputs, outputs, 1) for _ in range(2)]
    return nn.Sequential(_Block(inputs, outputs, stride), *rest)


class ResNet20(nn.Module):
    """ResNet-20 of grey images (He et al., CVPR 2016, Sec. 4.2).

    Args:
        width: Channels of the last stage, 64 in the paper; those before it have about a half and a
            quarter of them.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        first, second = max(1, round(width / 4)), max(1, round(width / 2))
        self.stem = _conv_norm(1, first, 3)
        self.stages = nn.Sequential(
            _stage(first, first, 1), _stage(first, second, 2), _stage(second, width, 2)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(N, 1, H, W)``."""
        return self.head(self.stages(F.relu(self.stem(x))).mean((2, 3)))


class _Attention(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, features // heads
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


class _Layer(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(features), _Attention(features, heads)
        self.norm2 = nn.LayerNorm(features)
        self.fc1, self.fc2 = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """A small vision transformer: patches of 4x4 pixels, mean over tokens.

    Args:
        width: Features of a token; a multiple of the heads.
        heads: Of every layer.
        depth: Layers.
    """

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.layers = nn.Sequential(*[_Layer(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(N, 1, 28, 28)``."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(x)).mean(1))


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], range]] = {
    "resnet20": (ResNet20, range(1, 65)),
    "vit": (ViT, range(4, 65, 4)),
}
"""By name: from a width to the network, and the widths there are; the last is the whole one."""
