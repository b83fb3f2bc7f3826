"""The table of supernets that every law runs over; a new one joins by adding a line."""

from functools import cache

import torch
from tests.costs import example
from torch import nn
from torch.nn import functional as F

from boundnas import Supernet, elastic, models
from boundnas.models import ConvNeXt, ConvNeXtStage, MobileNet, StageTable, StemTable
from boundnas.supernet.inputs import noise


class ConvNormReLU(nn.Module):
    """A residual layer put together by a user."""

    def __init__(self, width, kernel, activation):
        super().__init__()
        self.conv = elastic.Conv2d(width, width, kernel, bias=True)
        self.norm = elastic.BatchNorm2d(width)
        self.activation = elastic.Activation(activation)

    def forward(self, x, arch):
        return x + self.activation(self.norm(self.conv(x, arch), arch), arch)


class OwnNetwork(Supernet):
    """Plain and elastic layers, sums and poolings, and a dimension with nothing to choose."""

    def __init__(self):
        super().__init__((3, 10, 10))
        width = self.dimension("width", (3, 5, 8))
        kernel = self.dimension("kernel", (1, 3, 5), "kernel")
        depth = self.dimension("depth", (1, 3), "depth")
        activation = self.dimension("activation", ("relu", "swish"), "activation")
        se = self.dimension("se", (False, True), "se")
        only = self.dimension("only", (6,))
        hidden = self.dimension("hidden", (4, 7, 10))
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = elastic.Conv2d(4, width, kernel, bias=True)
        self.norm = elastic.BatchNorm2d(width)
        self.side = elastic.Conv2d(4, width)
        layers = [ConvNormReLU(width, kernel, activation) for _ in range(3)]
        self.stage = elastic.Stage(layers, depth)
        self.se = elastic.SqueezeExcite(width, se, reduction=2)
        self.depthwise = elastic.DepthwiseConv2d(width, kernel, stride=2, bias=True)
        self.neck = elastic.Conv2d(width, only)
        self.neck_norm = elastic.BatchNorm2d(only)
        self.hidden = elastic.Linear(only, hidden)
        self.classifier = elastic.Linear(hidden, 4, bias=False)

    def forward(self, x, arch):
        x = F.relu(self.first(x))
        x = F.relu(self.norm(self.conv(x, arch), arch)) + self.side(x, arch)
        x = F.avg_pool2d(x, 2)
        x = self.depthwise(self.se(self.stage(x, arch), arch), arch)
        x = F.relu(self.neck_norm(self.neck(x, arch), arch)).mean((2, 3))
        return self.classifier(F.relu(self.hidden(x, arch)), arch)


class SampleWise(Supernet):
    """Without BatchNorm, so that every sample passes by itself."""

    def __init__(self):
        super().__init__((2, 6, 6))
        width = self.dimension("width", (2, 4, 7))
        kernel = self.dimension("kernel", (1, 3, 5), "kernel")
        depth = self.dimension("depth", (1, 2, 3), "depth")
        se = self.dimension("se", (False, True), "se")
        activation = self.dimension("activation", ("relu", "swish"), "activation")
        hidden = self.dimension("hidden", (3, 5))
        self.conv = elastic.Conv2d(2, width, kernel, bias=True)
        layers = [elastic.Conv2d(width, width, kernel, bias=True) for _ in range(3)]
        self.stage = elastic.Stage(layers, depth)
        self.depthwise = elastic.DepthwiseConv2d(width, kernel)
        self.activation = elastic.Activation(activation)
        self.se = elastic.SqueezeExcite(width, se)
        self.dropout = elastic.Dropout(0.5)
        self.hidden = elastic.Linear(width, hidden)
        self.classifier = elastic.Linear(hidden, 3)

    def forward(self, x, arch):
        x = self.depthwise(self.stage(self.conv(x, arch), arch), arch)
        x = self.se(self.activation(x, arch), arch).mean((2, 3))
        return self.classifier(self.hidden(self.dropout(x, arch), arch).tanh(), arch)


class TokenBlock(nn.Module):
    """Attention and a perceptron put together by a user; plain layers and weights mix tokens."""

    def __init__(self, width, heads, hidden, activation):
        super().__init__()
        inner = heads.map(lambda h: 3 * h)
        self.query, self.key, self.value = (elastic.Linear(width, inner) for _ in range(3))
        self.project = elastic.Linear(inner, width)
        self.mixing, self.weight = nn.Linear(9, 9), nn.Parameter(torch.randn(9, 9) / 3)
        self.up, self.down = elastic.Linear(width, hidden), elastic.Linear(hidden, width)
        self.activation, self.drop = elastic.Activation(activation), elastic.DropConnect(0.3)

    def forward(self, x, arch):
        q, k, v = (
            layer(x, arch).unflatten(-1, (-1, 3)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.drop(self.project(y, arch), arch)
        x = self.weight @ x + self.mixing(x.transpose(1, 2)).transpose(1, 2)
        return x + self.down(self.activation(self.up(x, arch), arch), arch)


class Tokens(Supernet):
    """Layers on the last axis, between which the channels lie elsewhere."""

    def __init__(self):
        super().__init__((2, 6, 6))
        width = self.dimension("width", (2, 4, 7))
        heads = self.dimension("heads", (1, 2, 4), "heads")
        hidden = self.dimension("hidden", (3, 8))
        depth = self.dimension("depth", (1, 2), "depth")
        activation = self.dimension("activation", ("relu", "swish"), "activation")
        self.patches = elastic.Conv2d(2, width, 3, stride=2, bias=True)
        layers = [TokenBlock(width, heads, hidden, activation) for _ in range(2)]
        self.stage = elastic.Stage(layers, depth)
        self.dropout = elastic.Dropout(0.5, axis=-1)
        self.hidden = elastic.Linear(width, hidden, bias=False)
        self.classifier = elastic.Linear(hidden, 3)

    def forward(self, x, arch):
        x = self.patches(x, arch).flatten(2).transpose(1, 2)
        x = self.dropout(self.stage(x, arch), arch)
        return self.classifier(self.hidden(x, arch).sigmoid().mean(1), arch)


def _own_stages():
    stages = (
        StageTable((4, 8), (4, 6), (1, 2), (3, 5), (False, True), ("relu", "swish"), stride=2),
        StageTable((6,), (5,), (2,), (3,), (True,), ("swish",)),
        StageTable((3, 6, 9), (4, 8), (1, 3), (5,)),
    )
    return MobileNet(StemTable((3, 4), (3, 5, 7), stride=2), stages, 12, image_size=16, classes=5)


def _convnext():
    stages = [ConvNeXtStage((4, 6, 8), (6, 12), (1, 2), (3, 7)), ConvNeXtStage((5, 10), (20,))]
    model = ConvNeXt(stages, image_size=8, classes=4)
    for name, parameter in model.named_parameters():
        if name.endswith("scale.weight"):  # at its start hardly anything passes
            parameter.data.fill_(0.7)
    return model


def _vit():
    table = models.TransformerTable((3, 5, 8), (2, 4), (4, 9), (1, 2), head_width=3, group=2)
    return models.VisionTransformer(table, 4, image_size=8, in_channels=2, classes=4)


def _attentive_nas():
    stages = {"one": ((16, 24), (1, 2), (1,), 1, False), "two": ((16, 24), (1,), (2, 3), 2, True)}
    return example("attentive_nas").AttentiveNAS(4, 8, (8, 12), stages)


SPACES = {
    "convnext": _convnext,
    "resnet1d": lambda: models.resnet1d(0.05, length=12, in_channels=2),
    "resnet": lambda: models.resnet(0.05, image_size=8, in_channels=2),
    "mobilenet_v2": lambda: models.mobilenet_v2(0.125, image_size=16),
    "mobilenet_v3": lambda: models.mobilenet_v3(0.125, image_size=8, in_channels=1),
    "width_only": lambda: models.width_only(0.2, image_size=8, last_width=20),
    "own_stages": _own_stages,
    "own_network": OwnNetwork,
    "sample_wise": SampleWise,
    "tokens": Tokens,
    "vit": _vit,
    "attentive_nas": _attentive_nas,
}


def seeded(build, seed=0):
    """A supernet whose biases are random: exact ties at ReLU's corner have no gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def supernet(name):
    """A fresh supernet of the table."""
    return seeded(SPACES[name])


@cache
def shared(name):
    """One for all tests that only read it: what is found out about a model is found once."""
    return supernet(name)


def images(model, size, seed=0):
    """A batch of normal noise in the model's precision, or of whole numbers like its own."""
    generator = torch.Generator().manual_seed(seed)
    return noise(model, size, generator)
