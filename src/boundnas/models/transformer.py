"""Transformers of images and of text: blocks of attention and perceptrons, each after a norm.

Searched are the width of the tokens, the depth, and of every block its heads and its hidden
features (Vaswani et al., 2017; Dosovitskiy et al., 2021; Touvron et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boundnas import elastic
from boundnas.errors import SpaceError
from boundnas.models.parts import Searched, eighths, rising, scaled
from boundnas.space import Architecture, Setting, check_sizes
from boundnas.supernet.supernet import Supernet
from boundnas.typed import checked


@dataclass(frozen=True)
class TransformerTable:
    """Choices of a transformer's blocks.

    Args:
        width: Features of a token.
        heads: Heads of attention, searched for every block by itself.
        hidden: Features between the two linear layers of a block, likewise.
        depth: Numbers of blocks.
        head_width: Features of a head.
        group: Heads that share keys and values.
    """

    width: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    depth: tuple[int, ...]
    head_width: int = 64
    group: int = 1


class _Block(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut."""

    def __init__(
        self, width: Setting, heads: Setting, hidden: Setting, table: TransformerTable,
        causal: bool, drop: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.before, self.between = elastic.LayerNorm(width), elastic.LayerNorm(width)
        self.attention = elastic.MultiheadAttention(
            width, heads, table.head_width, group=table.group, causal=causal
        )
        self.up, self.down = elastic.Linear(width, hidden), elastic.Linear(hidden, width)
        self.drop = elastic.DropConnect(drop)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        x = x + self.drop(self.attention(self.before(x, arch), arch), arch)
        hidden = F.gelu(self.up(self.between(x, arch), arch))
        return x + self.drop(self.down(hidden, arch), arch)


def _blocks(
    net: Supernet, width: Setting, table: TransformerTable, causal: bool, drop_connect: float
) -> elastic.Stage:
    depth = Searched(net, "blocks")("depth", table.depth, "depth")
    blocks = []
    for i, drop in enumerate(rising(drop_connect, max(table.depth)), 1):
        searched = Searched(net, f"blocks.layer{i}")
        heads = searched("heads", table.heads, "heads")
        hidden = searched("hidden", table.hidden, "width")
        blocks.append(_Block(width, heads, hidden, table, causal, drop))
    return elastic.Stage(blocks, depth)


class VisionTransformer(Supernet):
    """A ViT-like supernet: tokens of patches, a class token, blocks, a norm, a classifier.

    Args:
        table: Choices of the blocks.
        patch: Height and width of a patch.
        image_size: Height and width of the images, a multiple of ``patch``.
        in_channels: Channels of the images.
        classes: Number of classes.
        dropout: Probability before the classifier, on the max network.
        drop_connect: Probability at the last block, rising linearly from the first; on the max
            network.
        pool: What is classified: the class ``"token"``, or the ``"mean"`` of all tokens, among
            which there is no class token then.

    Shape:
        ``(N, in_channels, image_size, image_size)`` to logits ``(N, classes)``.

    Raises:
        SpaceError: Patches that do not fill the image, or another pooling.
    """

    @checked
    def __init__(
        self,
        table: TransformerTable,
        patch: int = 4,
        image_size: int = 32,
        in_channels: int = 3,
        classes: int = 10,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        pool: str = "token",
    ) -> None:
        super().__init__((in_channels, image_size, image_size))
        check_sizes("VisionTransformer", patch=patch, classes=classes)
        if image_size % patch:
            raise SpaceError(
                f"patches fill an image whole, found {image_size} pixels and patches of {patch}"
            )
        if pool not in ("token", "mean"):
            raise SpaceError(f"pool must be token or mean, found {pool!r}")
        width = Searched(self, "tokens")("width", table.width, "width")
        self.patches = elastic.Conv2d(in_channels, width, patch, patch, padding=0, bias=True)
        number = (image_size // patch) ** 2 + (pool == "token")
        self.token = elastic.Parameter((1, width)) if pool == "token" else None
        self.positions = elastic.Parameter((number, width))
        self.blocks = _blocks(self, width, table, False, drop_connect)
        self.norm, self.dropout = elastic.LayerNorm(width), elastic.Dropout(dropout)
        self.classifier = elastic.Linear(width, classes)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        y = self.patches(x, arch).flatten(2).transpose(1, 2)
        if self.token is not None:
            y = torch.cat([self.token(x, arch), y], 1)
        y = self.blocks(y + self.positions(x, arch), arch)
        y = y.mean(1) if self.token is None else y[:, 0]
        return self.classifier(self.dropout(self.norm(y, arch), arch), arch)


class TextTransformer(Supernet):
    """A transformer of sequences of tokens, to classify them or to tell the token that comes next.

    Args:
        table: Choices of the blocks.
        vocabulary: Number of tokens.
        length: Tokens of a sequence.
        classes: Number of classes; none tells the next token at every position, for which a token
            attends to itself and those before it only.
        dropout: Probability before the last layer, on the max network.
        drop_connect: As of `VisionTransformer`.

    Shape:
        Token numbers ``(N, length)`` to logits ``(N, classes)``, or ``(N, length, vocabulary)``.
    """

    @checked
    def __init__(
        self,
        table: TransformerTable,
        vocabulary: int,
        length: int,
        classes: int | None = None,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
    ) -> None:
        check_sizes("TextTransformer", vocabulary=vocabulary, length=length)
        super().__init__(torch.arange(length) % vocabulary)
        width = Searched(self, "tokens")("width", table.width, "width")
        self.tokens = elastic.Embedding(vocabulary, width)
        self.positions = elastic.Parameter((length, width))
        self.classified = classes is not None
        self.blocks = _blocks(self, width, table, not self.classified, drop_connect)
        self.norm, self.dropout = elastic.LayerNorm(width), elastic.Dropout(dropout, axis=-1)
        self.head = elastic.Linear(width, vocabulary if classes is None else classes)

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Logits of the sub-network ``arch``."""
        y = self.tokens(x, arch) + self.positions(x, arch)
        y = self.blocks(y, arch)
        if self.classified:
            y = y.mean(1)
        return self.head(self.dropout(self.norm(y, arch), arch), arch)


@checked
def vit(width: float = 1.0, image_size: int = 32, **options: object) -> VisionTransformer:
    """A space whose largest network is DeiT-Tiny: widths in eighths, 1 to 3 heads, 2 to 12 blocks.

    Args:
        width: Multiplier of the features of tokens, heads and hidden layers.
        image_size: Height and width of the images; patches are of 16 pixels above 64, of 4 above
            16, else of 2.
        options: Passed on to `VisionTransformer`: ``in_channels``, ``classes``, ``dropout``,
            ``drop_connect``, ``pool``.

    Examples:
        >>> len(vit(width=0.125).space.dimensions)
        26
    """
    patch = 16 if image_size > 64 else 4 if image_size > 16 else 2
    table = _table(192, (1, 2, 3), tuple(range(2, 13, 2)), width)
    return VisionTransformer(table, patch, image_size, **options)  # type: ignore[arg-type]


@checked
def text_transformer(
    vocabulary: int, length: int, width: float = 1.0, classes: int | None = None, **options: float
) -> TextTransformer:
    """A space of small transformers of text: 128 features, 1 to 4 heads, 1 to 4 blocks at most.

    Args:
        vocabulary: Number of tokens.
        length: Tokens of a sequence.
        width: Multiplier of the features of tokens, heads and hidden layers.
        classes: As of `TextTransformer`.
        options: Passed on to it: ``dropout``, ``drop_connect``.

    Examples:
        >>> len(text_transformer(30, 8, width=0.125).space.dimensions)
        10
    """
    table = _table(128, (1, 2, 4), (1, 2, 3, 4), width)
    return TextTransformer(table, vocabulary, length, classes, **options)


def _table(
    features: int, heads: Sequence[int], depth: Sequence[int], width: float
) -> TransformerTable:
    """All widths in eighths, four hidden features for each of a token's."""
    (head_width,) = scaled((features // max(heads),), width)
    widths, hidden = (scaled(eighths(f), width) for f in (features, 4 * features))
    return TransformerTable(widths, tuple(heads), hidden, tuple(depth), head_width)
