"""Whatever network is drawn, what `elasticize` makes of it is right in all respects or refused."""

import copy

import pytest
import torch
from tests import laws
from tests.graphs.drawn import Drawn

from boundnas import Supernet, elasticize
from boundnas.convert.verify import _apart
from boundnas.errors import BoundNASError, ConvertError

BLOCKS, SAMPLE, ALL = 8, 2, 40
"""Parts of the table of seeds, and how many each has: of a sample, of all."""


def in_double(net, example):
    """A copy in double precision."""
    net = copy.deepcopy(net).double()
    return net, example.double() if example.is_floating_point() else example


def verdict(seed):
    """Whether a drawn network is made elastic; all laws hold then. Else why not."""
    net = Drawn(seed)
    before = copy.deepcopy(net.state_dict())
    try:
        model = elasticize(net, net.example, sort=False)
    except ConvertError as error:
        return str(error)
    laws.largest_is_original(net, model, exact=True)
    twin, example = in_double(net, net.example)
    double = elasticize(twin, example)
    laws.largest_is_original(twin, double, exact=False)
    try:
        laws.trainable(double)
    except BoundNASError as error:
        return str(error)
    laws.gradient_is_masked(double, seed)
    laws.gradient_of_a_part_is_the_whole_s(double, seed)
    laws.extracted_is_supernet(model, 1, seed)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "changed"
    return None


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_drawn_network_is_right_or_refused_by_name(block, full, figure):
    number = ALL if full else SAMPLE
    refused = []
    for seed in range(block * ALL, block * ALL + number):
        try:
            refused.append(verdict(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}, {' / '.join(Drawn(seed).said)}: {error}") from error
    right = refused.count(None)
    assert right >= number / 3 or not full, refused
    figure(f"block {block}: {right} of {number} drawn networks right, the others refused by name")


@pytest.mark.parametrize("number", [2, 3, 8, 9, 21])
def test_the_networks_that_are_tried_tell_any_two_dimensions_apart(number):
    model = Supernet((3, 8, 8))
    for i in range(number):
        model.dimension(f"width{i}", (1, 2, 4))
    tried = [arch.indices for arch in _apart(model.space)]
    assert len(tried) <= 2 * (number - 1).bit_length()
    pairs = {(i, j) for t in tried for i in range(number) for j in range(number) if t[i] < t[j]}
    assert pairs == {(i, j) for i in range(number) for j in range(number) if i != j}


def test_attention_that_depth_can_cut_costs_what_is_counted():
    net = Drawn(30)
    laws.extracted_is_supernet(elasticize(net, net.example, sort=False), 1, 30)
