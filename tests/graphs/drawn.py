"""Networks drawn by a seed: small ordinary modules, as people write them and as they do not.

A drawn network is a list of steps; each takes maps that are there and adds one. What it is made of
stands in the tables of the files beside, and a further kind joins by one line. Kinds in `maps.RARE`
have no rule; a network with them must still convert, with what they touch left as it is.
"""

import random

import torch
from tests.graphs.families import images, rows, sequences, volumes
from tests.graphs.tokens import tokens
from torch import nn


class Drawn(nn.Module):
    """A network of a seed.

    Args:
        seed: What is drawn.

    Attributes:
        steps: A function, the names of its modules, the places of its maps among those computed.
        said: The kinds of the steps, for messages.
        example: A batch that it takes.
    """

    def __init__(self, seed):
        super().__init__()
        self.draw = random.Random(seed)
        self.steps, self.said, self.values, self.count = [], [], [], 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            family = self.draw.choice([*FAMILIES, "images", "images"])
            self.said.append(family)
            self.example = FAMILIES[family](self)
            self._trained()
        self.eval()
        self.values = None  # only needed to draw

    def forward(self, x):
        values = [x]
        for function, modules, places in self.steps:
            parts = [self.get_submodule(name) for name in modules]
            values.append(function(*parts, *(values[place] for place in places)))
        return values[-1]

    def add(self, kind, function, modules=(), places=(-1,)):
        """Add a step; its places count from the end, or name a map."""
        names = [m if isinstance(m, str) else self.part(m) for m in modules]
        places = [p % len(self.values) for p in places]
        with torch.no_grad():
            parts = [self.get_submodule(name).eval() for name in names]
            y = function(*parts, *(self.values[p] for p in places))
        self.steps.append((function, names, places))
        self.said.append(kind)
        self.values.append(y)
        return len(self.values) - 1

    def part(self, module):
        """Give a module a name."""
        self.count += 1
        name = f"part{self.count}"
        self.add_module(name, module)
        return name

    @property
    def shape(self):
        """Of the last map."""
        return self.values[-1].shape

    def _trained(self):
        """Statistics, scales and biases as if it had been trained, none of them a round number."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        for parameter in self.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)


FAMILIES = {
    "images": images,
    "sequences": sequences,
    "volumes": volumes,
    "rows": rows,
    "tokens": tokens,
}
