"""Supernets drawn from a grammar of what users write between elastic layers, by a seed."""

import random

import torch
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, elastic
from boundnas.space import Joined

SIZE = 6
"""Pixels of an image, both ways."""


def pixel_set(y):
    y = y.clone()
    y[..., 0, 1] = 0
    return y


def halves(y):
    left, right = y.chunk(2, 3)
    return torch.cat([right, left], 3)


def by_hand(y):
    return y * y.mean((2, 3)).sigmoid().view(y.size(0), y.size(1), 1, 1)


def times(y, factor):
    y *= factor
    return y


FUNCTIONS = {  # one map to one of the same shape; whether it may stand there
    "relu": (F.relu, True),
    "silu": (F.silu, True),
    "leaky": (lambda y: torch.where(y > 0, y, 0.1 * y), True),
    "clamp": (lambda y: y.clamp(-1, 2), True),
    "relu_": (lambda y: F.relu(y.clone(), inplace=True), True),
    "in place": (lambda y: times(y, 0.5), True),
    "add_": (lambda y: (y + 1).add_(y), True),
    "max_pool": (lambda y: F.max_pool2d(y, 3, 1, 1), True),
    "avg_pool": (lambda y: F.avg_pool2d(y, 3, 1, 1), True),
    "pad and crop": (lambda y: F.pad(y, (1, 1, 0, 0))[..., 2:], True),
    "pixels turned": (lambda y: y.flip(2).roll(1, 3).transpose(2, 3), True),
    "permuted": (lambda y: y.permute(0, 2, 3, 1).tanh().permute(0, 3, 1, 2), True),
    "centred": (lambda y: y - y.mean((2, 3), keepdim=True), True),
    "squeeze and excite": (by_hand, True),
    "reshaped": (lambda y: y.reshape(y.shape[0], y.shape[1], -1).sin().reshape(y.shape), True),
    "reshaped by -1": (lambda y: y.reshape(y.size(0), -1, SIZE, SIZE), True),
    "flat and back": (lambda y: y.flatten(1).reshape(y.shape), True),
    "unflattened": (lambda y: y.flatten(2).unflatten(2, (SIZE, SIZE)), True),
    "halves": (halves, True),
    "pixel set": (pixel_set, False),  # extraction cannot follow it
    "resized": (lambda y: F.interpolate(F.avg_pool2d(y, 2), size=y.shape[2:]), True),
    "instance norm": (F.instance_norm, True),
    "softmax of pixels": (lambda y: y.flatten(2).softmax(2).view(y.shape), True),
    "cumsum of pixels": (lambda y: y.cumsum(3), True),
    "stacked": (lambda y: torch.stack([y, 2 * y]).sum(0), True),
    "detached": (lambda y: y + y.detach().sigmoid(), True),
    "softmax": (lambda y: y.softmax(1), False),
    "normalize": (F.normalize, False),
    "group norm": (lambda y: F.group_norm(y, 1), False),
    "layer norm": (lambda y: F.layer_norm(y, y.shape[1:]), False),
    "flip": (lambda y: y.flip(1), False),
    "roll": (lambda y: y.roll(1, 1), False),
    "sum": (lambda y: y * y.sum(1, keepdim=True).tanh(), False),
    "mean": (lambda y: y - y.mean(1, keepdim=True), False),
    "mean of all": (lambda y: y - y.mean(), False),
    "cumsum": (lambda y: y.cumsum(1), False),
    "sort": (lambda y: y.sort(1)[0], False),
    "one channel": (lambda y: y + y[:, :1], False),
    "halves of channels": (lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), False),
    "shuffled": (
        lambda y: y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2), False,
    ),
    "samples turned": (lambda y: y + y.flip(0), False),
    "by the width": (lambda y: y / y.shape[1], False),
    "item": (lambda y: y * y.detach().abs().max().item(), False),
    "dropout": (lambda y: F.dropout(y, 0.5), False),
    "noise": (lambda y: y + torch.randn_like(y), False),
    "plain weights": (lambda y: y * torch.arange(1.0, y.shape[1] + 1).to(y)[:, None, None], False),
}  # fmt: skip

MODULES = {  # on a fixed width of four
    "convolution": (lambda: nn.Conv2d(4, 4, 3, padding=1), True),
    "group norm": (lambda: nn.GroupNorm(2, 4), True),
    "softmax": (lambda: nn.Softmax(1), True),
    "prelu": (lambda: nn.PReLU(4), True),
    "relu in place": (lambda: nn.ReLU(inplace=True), True),
    "batch norm": (lambda: nn.BatchNorm2d(4), False),
    "dropout": (lambda: nn.Dropout(0.5), False),
}

HEADS = {
    "mean": (lambda y: y.mean((2, 3)), 1, True),
    "pooled and flat": (lambda y: F.adaptive_avg_pool2d(y, 1).flatten(1), 1, True),
    "view": (lambda y: F.adaptive_max_pool2d(y, 1).view(y.size(0), -1), 1, True),
    "reshape": (lambda y: y.reshape(y.shape[0], y.shape[1], -1).mean(2), 1, True),
    "every pixel": (lambda y: y.flatten(1), SIZE * SIZE, True),
    "every pixel by sizes": (
        lambda y: y.reshape(-1, y.shape[1] * y.shape[2] * y.shape[3]), SIZE * SIZE, True,
    ),
    "pixels first": (lambda y: y.permute(0, 2, 3, 1).flatten(1), SIZE * SIZE, False),
    "squeeze": (lambda y: F.adaptive_avg_pool2d(y, 1).squeeze(), 1, False),
}  # fmt: skip


class Drawn(Supernet):
    """A supernet of a seed; ``steps`` says what it does, ``sound`` whether all of it may be."""

    def __init__(self, seed):
        super().__init__((2, SIZE, SIZE))
        self.draw = random.Random(seed)
        self.steps, self.sound = [], True
        self.count = 0
        self.kernel = self.dimension("kernel", (1, 3))
        self.branch = self.dimension("branch", (False, True))
        self.used_branch = False
        self.faulty = self.draw.random() < 0.4
        """Whether steps are drawn that may not be there."""
        names = ("first", "second", "beside")
        first, second, self.beside = (self.dimension(n, self._widths()) for n in names)
        self.stem = elastic.Conv2d(2, first, self.kernel, bias=True)
        self.plan = [*self._between(first), *self._change(first, second), *self._between(second)]
        head = self._pick(HEADS)
        self.last, pixels, _ = HEADS[head]
        self.steps.append(head)
        width = second if pixels == 1 else second.map(lambda c: c * pixels)
        self.head = elastic.Linear(width, 3)

    def _widths(self):
        return self.draw.choice([(1, 2, 4), (2, 4, 6), (2, 3), (1, 3), (4, 8)])

    def _pick(self, table):
        names = [n for n, row in table.items() if row[-1] or self.faulty]
        name = self.draw.choice(names)
        self.sound = self.sound and table[name][-1]
        return name

    def _add(self, module):
        self.count += 1
        name = f"part{self.count}"
        self.add_module(name, module)
        return name

    def _between(self, width):
        kinds = ["function"] * 5 + ["norm", "beside", "map", "fixed", "depthwise", "se"]
        kinds += ["cat", "split", "branch"]
        for kind in self.draw.choices(kinds, k=self.draw.randint(1, 3)):
            yield getattr(self, f"_{kind}")(width)

    def _function(self, width):
        name = self._pick(FUNCTIONS)
        self.steps.append(name)
        function = FUNCTIONS[name][0]
        return lambda m, y, x, arch: function(y)

    def _branch(self, width):
        name = self._pick(FUNCTIONS)
        self.steps.append(f"{name} in a branch")
        function = FUNCTIONS[name][0]
        return lambda m, y, x, arch: function(y) if arch[m.branch] else y

    def _norm(self, width):
        self.steps.append("norm")
        name = self._add(elastic.BatchNorm2d(width, activation=self.draw.choice([None, "swish"])))
        return lambda m, y, x, arch: getattr(m, name)(y, arch)

    def _beside(self, width):
        self.steps.append("a sum with another map")
        name = self._add(elastic.Conv2d(2, width, 3, bias=True))
        return lambda m, y, x, arch: y + getattr(m, name)(x, arch)

    def _cat(self, width):
        """Maps side by side into a layer that is built for them, or not quite."""
        other = self.draw.choice([width, self.beside, 2])
        given = {"cat": Joined((width, other)), "cat the other way": Joined((other, width))}
        if other == width:
            given["cat as one width"] = width.map(lambda c: 2 * c)
        name = self.draw.choice(sorted(given) if self.faulty else ["cat"])
        self.steps.append(f"{name}, {other}")
        self.sound = self.sound and (name == "cat" or (other == width and "way" in name))
        beside = self._add(elastic.Conv2d(2, other, 3, bias=True))
        norm = self._add(elastic.BatchNorm2d(Joined((width, other)), activation="swish"))
        tail = self._add(elastic.Conv2d(given[name], width, self.draw.choice([1, self.kernel])))

        def apply(m, y, x, arch):
            y = torch.cat([y, getattr(m, beside)(x, arch)], 1)
            return getattr(m, tail)(getattr(m, norm)(y, arch).tanh(), arch)

        return apply

    def _split(self, width):
        """Maps side by side that are taken apart, where they join or elsewhere."""
        name = self.draw.choice(["chunk", "split", "apart", *["across"] * self.faulty])
        self.steps.append(f"{name} of two")
        self.sound = self.sound and name != "across"
        others = Joined((self.beside, width, 1)) if name == "apart" else Joined((width, width))
        into = self._add(elastic.Conv2d(width, others, bias=True))
        deep = self._add(elastic.DepthwiseConv2d(others, self.kernel))
        apart = self._add(elastic.Split(others)) if name == "apart" else None
        take = {
            "chunk": lambda m, y, arch: y.chunk(2, 1),
            "split": lambda m, y, arch: y.split(y.shape[1] // 2, dim=1),
            "across": lambda m, y, arch: y.split(1, 1)[:2],
            "apart": lambda m, y, arch: getattr(m, apart)(y, arch)[1:],
        }[name]

        def apply(m, y, x, arch):
            first, second = take(m, getattr(m, deep)(getattr(m, into)(y, arch), arch), arch)
            return first * second.sigmoid()

        return apply

    def _map(self, width):
        self.steps.append("a map over all channels")
        name = self._add(elastic.Conv2d(width, 1, 3))
        return lambda m, y, x, arch: y * getattr(m, name)(y, arch).sigmoid()

    def _fixed(self, width):
        kind = self._pick(MODULES)
        self.steps.append(f"{kind} on a fixed width")
        names = [
            self._add(m)
            for m in (elastic.Conv2d(width, 4), MODULES[kind][0](), elastic.Conv2d(4, width))
        ]

        def apply(m, y, x, arch):
            into, plain, back = (getattr(m, name) for name in names)
            return back(plain(into(y, arch)), arch)

        return apply

    def _depthwise(self, width):
        self.steps.append("depthwise")
        name = self._add(elastic.DepthwiseConv2d(width, self.kernel, bias=True))
        return lambda m, y, x, arch: getattr(m, name)(y, arch)

    def _se(self, width):
        self.steps.append("elastic squeeze and excite")
        name = self._add(elastic.SqueezeExcite(width, True, reduction=2))
        return lambda m, y, x, arch: getattr(m, name)(y, arch)

    def _change(self, first, second):
        self.steps.append("|")
        name = self._add(elastic.Conv2d(first, second, self.kernel, bias=True))
        yield lambda m, y, x, arch: getattr(m, name)(y, arch)

    def forward(self, x, arch):
        y = self.stem(x, arch)
        for step in self.plan:
            y = step(self, y, x, arch)
        return self.head(self.last(y), arch)
