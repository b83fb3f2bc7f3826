"""An assignment to a part of a tensor as functions that change nothing; a further key is a line."""

import operator

import pytest
import torch
from torch import fx, nn

from boundnas.convert.assigning import as_new, by_axes

whole = slice(None)
ASSIGNED = {  # a key, and what is assigned: a number, or the shape of a tensor
    "between": ((whole, slice(1, 3)), (3, 2, 5)),
    "to the end": ((whole, slice(1, None)), (3, 3, 5)),
    "from the start": ((whole, slice(2)), (3, 2, 5)),
    "from behind": ((whole, whole, slice(-2, -1)), (3, 4, 1)),
    "along two axes": ((whole, slice(1, 3), slice(0, 2)), (3, 2, 2)),
    "along three": ((slice(1, 2), slice(1, 3), slice(0, 2)), (1, 2, 2)),
    "a column": ((whole, 1), (3, 5)),
    "the last column": ((..., -1), (3, 4)),
    "one entry of each": ((whole, -2, 0), (3,)),
    "a column between": ((whole, 2, slice(1, 4)), (3, 3)),
    "a column, the same for all": ((whole, 2), (5,)),
    "a column of one number each": ((whole, 2), (3, 1)),
    "a number": ((whole, slice(1, 2)), 0.5),
    "a number at a column": ((whole, 3), 2),
    "all of it": (whole, (3, 4, 5)),
    "all of it, from one": (whole, (5,)),
    "dots": ((..., slice(3, 9)), (3, 4, 2)),
    "dots alone": (..., 1.5),
    "nothing": ((whole, slice(2, 2)), 1.0),
    "one key": (slice(0, 2), (4, 5)),
}


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
@pytest.mark.parametrize(("key", "given"), ASSIGNED.values(), ids=ASSIGNED)
def test_what_an_assignment_changes_is_made_as_a_new_tensor(key, given, kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator)
    y = torch.randn(given, generator=generator).mul(9).to(kind) if type(given) is tuple else given
    graph = fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    a.meta["value"], b.meta["value"] = x, y
    node = graph.call_function(operator.setitem, (a, key, y if y is given else b))
    made = as_new(node)
    graph.erase_node(node)
    graph.output(made[-1])
    assert [n for n in graph.nodes if n in made] == made
    found = fx.GraphModule(nn.Module(), graph)(x, y)
    expected = x.clone()
    expected[key] = y
    assert torch.equal(found, expected)
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert made[-1] is not b
    assert made[-1].meta["value"].shape == x.shape


@pytest.mark.parametrize(
    "key",
    [[0, 1], torch.tensor([0]), None, (whole, slice(0, 4, 2)), True, (0, 0, 0, 0), (..., ...)],
)
def test_keys_of_other_kinds_are_told_apart(key):
    assert by_axes(key, 3) is None
