"""Learned positions: rows of a table that every sample is given alike, however they are asked for.

A further way joins the table by adding a line.
"""

from functools import cache

import pytest
import torch
from tests import laws
from tests.spaces import seeded
from torch import nn
from torch.nn import functional as F

import boundnas as bn

LENGTH = 6


class Placed(nn.Module):
    """Words, with rows of a table that a function looks up added to them."""

    def __init__(self, rows):
        super().__init__()
        self.embed, self.table = nn.Embedding(20, 8), nn.Embedding(12, 8)
        self.register_buffer("ids", torch.arange(12).expand((1, -1)))
        self.up, self.down, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.rows = rows

    def forward(self, x):
        y = self.rows(self, x, self.embed(x))
        return self.head((y + self.down(torch.relu(self.up(y)))).mean(1))


def added(ids):
    return lambda m, x, y: y + m.table(ids(m, x))


def count(x):
    return torch.arange(x.size(1), device=x.device)


FOLLOWED = {
    "counted": added(lambda m, x: torch.arange(x.shape[1])),
    "from 2 on": added(lambda m, x: count(x) + 2),
    "backwards": added(lambda m, x: torch.arange(x.size(1) - 1, -1, -1)),
    "moved": added(lambda m, x: torch.arange(x.size(1)).to(x.device)),
    "unsqueezed": added(lambda m, x: count(x).unsqueeze(0)),
    "a view": added(lambda m, x: count(x).view(1, -1)),
    "expanded": added(lambda m, x: count(x).expand(x.size(0), x.size(1))),
    "expanded, last as it is": added(lambda m, x: count(x)[None].expand(x.size(0), -1)),
    "expanded as": added(lambda m, x: count(x).unsqueeze(0).expand_as(x)),
    "expanded to a shape": added(lambda m, x: count(x).expand(x.shape)),
    "broadcast": added(lambda m, x: torch.broadcast_to(count(x), x.shape)),
    "repeated": added(lambda m, x: count(x).repeat(x.size(0), 1)),
    "a buffer": added(lambda m, x: m.ids[:, : x.size(1)]),
    "a buffer expanded": added(lambda m, x: m.ids[:, : x.size(1)].expand(x.size(0), -1)),
    "summed ones": added(lambda m, x: torch.ones_like(x).cumsum(1) - 1),
    "one row": added(lambda m, x: torch.zeros_like(x)),
    "one row of sizes": added(lambda m, x: torch.zeros(x.shape, dtype=torch.long)),
    "one row of a start": added(lambda m, x: torch.full(x.shape[:2], 3)),
    "a method": added(lambda m, x: m.ids.new_zeros(x.shape[0], x.shape[1])),
    "in place": lambda m, x, y: y.add_(m.table(count(x).expand(x.shape))),
    "the weight": lambda m, x, y: y + m.table.weight[: x.size(1)],
    "a function": lambda m, x, y: y + F.embedding(count(x), m.table.weight),
    "rows twice": added(lambda m, x: count(x) // 2),
    "of the samples": added(lambda m, x: (x != 0).long().cumsum(1)),
}
"""Ways in which the table follows the width of the words."""

FIXED = {
    "multiplied": lambda m, x, y: y * m.table(count(x).expand(x.shape)),
    "side by side": lambda m, x, y: torch.cat([y, m.table(count(x).expand(x.shape))], 1),
    "looked up twice": lambda m, x, y: y + m.table(count(x)) + m.table(count(x) + 1),
    "used beside": lambda m, x, y: (y + m.table(count(x))) * m.table.weight[0],
}
"""Ways in which it stays as it is, and the words' width with it."""


@cache
def made(rows):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, example = Placed(rows).double().eval(), torch.randint(20, (1, LENGTH))
    return net, bn.elasticize(net, example, sort=False)


@pytest.mark.parametrize("rows", [*FOLLOWED.values(), *FIXED.values()], ids=[*FOLLOWED, *FIXED])
def test_positions_are_right_however_they_are_looked_up(rows):
    net, model = made(rows)
    laws.largest_is_original(net, model, exact=True)
    laws.extracted_is_supernet(model)
    laws.gradient_is_masked(model)
    laws.trainable(model)


def test_rows_by_a_samples_place_among_others_are_refused():
    rows = added(lambda m, x: count(x) + torch.arange(x.size(0))[:, None] % 2)
    with pytest.raises(
        bn.BoundNASError, match="for a sample alone than beside others, from arange"
    ):
        made(rows)


@pytest.mark.parametrize("rows", FOLLOWED.values(), ids=FOLLOWED)
def test_rows_for_all_samples_alike_follow_the_width_that_they_are_added_to(rows):
    assert [d.name for d in made(rows)[1].space.dimensions] == ["embed.width", "up.width"]


@pytest.mark.parametrize("rows", FIXED.values(), ids=FIXED)
def test_other_rows_stay_as_they_are_and_so_does_what_they_meet(rows):
    assert "embed.width" not in [d.name for d in made(rows)[1].space.dimensions]


def test_a_number_of_samples_that_the_forward_holds_itself_is_refused():
    rows = added(lambda m, x: torch.arange(len(x.T)).expand(2, LENGTH))
    with pytest.raises(bn.BoundNASError, match="fails on three samples"):
        made(rows)


class Full(nn.Module):
    """Fills a tensor with a value that it computed."""

    def __init__(self):
        super().__init__()
        self.up, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.up(x) + torch.full((8,), x.max()))


def test_a_tensor_made_of_a_value_is_no_constant():
    with pytest.raises(
        bn.BoundNASError, match=r"Full\.forward cannot be followed: it reads the val"
    ):
        bn.elasticize(seeded(Full), torch.ones(2, 3))
