"""What `elasticize` is handed: networks and examples that cannot be taken are refused by name."""

from functools import partial

import pytest
import torch
from tests.networks import refusal
from torch import nn
from torch.nn.utils import parametrizations, prune

import boundnas as bn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip


class Said(nn.Module):
    """Gives something else than tensors."""

    def forward(self, x):
        return "a text"


class OneByOne(nn.Module):
    def forward(self, x):
        return torch.stack([2 * each for each in x])


class Giving(nn.Module):
    """Gives what a function makes of a tensor."""

    def __init__(self, function):
        super().__init__()
        self.net, self.function = net(), function

    def forward(self, x):
        return self.function(self.net(x))


class Columns(nn.Module):
    """Numbers, and columns of kinds, by name."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(4, 8) for _ in range(2))
        self.first, self.last = nn.Linear(19, 16), nn.Linear(16, 1)

    def forward(self, numbers, kinds):
        rows = [table(kinds[:, i]) for i, table in enumerate(self.tables)]
        return self.last(self.first(torch.cat([numbers, *rows], 1)).relu())


def filled(name, number):
    made = net()
    with torch.no_grad():
        made.state_dict()[name].view(-1)[5:7] = number
    return made


def mixed():
    made = net()
    made[5].double()
    return made


def hooked():
    made = net()
    made.register_forward_hook(nothing)
    return made


def nothing(module, *given):
    return None


def computed():
    made = net()
    made[3].scale = 2 * made[3].weight
    return made


REFUSED = {
    "weights that are no numbers": (
        lambda: filled("3.weight", float("nan")),
        "3.weight holds 2 numbers that are not finite, of 128; nothing can be trained from such",
    ),
    "infinite weights": (lambda: filled("3.bias", float("inf")), "3.bias holds 2 numbers that are"),
    "infinite statistics": (
        lambda: filled("1.running_var", float("inf")),
        "1.running_var holds 2 numbers that are not finite, of 16",
    ),
    "half precision": (lambda: net().half(), "the weights are float16; networks are made elastic"),
    "mixed precision": (mixed, "the weights are float32 and float64; networks are made elastic"),
    "no weights yet": (
        lambda: nn.Sequential(nn.LazyConv2d(16, 3), nn.Flatten(), nn.LazyLinear(4)),
        "0.weight has no size yet, as its module is lazy; call the network once on the example",
    ),
    "on no device": (lambda: net().to("meta"), "the weights lie on meta; they must be on one dev"),
    "compiled": (
        lambda: torch.compile(net()),
        "OptimizedModule was compiled by torch.compile; give the module in it, model._orig_mod",
    ),
    "TorchScript": (
        lambda: torch.jit.script(nn.Conv2d(3, 4, 1)),
        "RecursiveScriptModule is TorchScript; give the Python module that it was made of",
    ),
    "TorchScript within": (
        lambda: nn.Sequential(*net()[:2], torch.jit.script(net()[2:])),
        "2 is TorchScript; give the Python module that it was made of",
    ),
    "samples one by one": (
        lambda: nn.Sequential(net()[:5], OneByOne(), net()[5]),
        "they differ by their shapes on random inputs",
    ),
    "on several devices": (
        lambda: nn.DataParallel(net()),
        "DataParallel calls another module on several devices; give that one, model.module",
    ),
    "a hook of the whole": (
        hooked,
        "Sequential has a hook, nothing, which a network that is made of it would not call",
    ),
    "a computed tensor": (computed, "3 holds a computed tensor, scale, so that the network"),
    "no tensor given": (Said, "Said gives a str; a network gives a tensor, or a tuple, list or"),
    "parametrized everywhere": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 8, 4)), nn.Flatten()),
        "0 computes its weight by a parametrization; torch.nn.utils.parametrize.remove_param",
    ),
    "another example": (
        lambda: net()[1:],
        "Sequential fails on the example, float32 of shape (1, 3, 4, 4): RuntimeError: running_me",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_to_start_from_is_refused_by_name(name):
    build, message = REFUSED[name]
    assert message in refusal(build, 4)


def dimensions(build, example):
    with torch.random.fork_rng(devices=[]):
        made = build()
        model = bn.elasticize(made, example, sort=False)
    return made, model, [d.name for d in model.space.dimensions]


ONE = {
    "a dict": lambda y: {"logits": y},
    "a tuple with nothing else": lambda y: (y, None),
    "a list in a dict": lambda y: {"outputs": [y], "loss": None},
}


@pytest.mark.parametrize("function", ONE.values(), ids=ONE)
def test_a_network_that_gives_one_tensor_gives_that_alone(function):
    made, model, names = dimensions(lambda: Giving(function), torch.zeros(1, 3, 4, 4))
    assert names == ["net.0.width", "net.3.width"]
    x = torch.ones(2, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(model.eval()(x, model.original), made.eval().net(x))


def test_columns_of_an_input_by_name_are_looked_up():
    example = {"numbers": torch.zeros(1, 3), "kinds": torch.zeros(1, 2, dtype=torch.long)}
    assert dimensions(Columns, example)[2] == ["tables.0.width", "tables.1.width", "first.width"]


WRAPPED = {
    "compiled": lambda part: torch.compile(part, backend="eager"),
    "on several devices": nn.DataParallel,
    "both": lambda part: nn.DataParallel(torch.compile(part, backend="eager")),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_parts_that_were_wrapped_are_looked_into(wrap):
    built = dimensions(lambda: nn.Sequential(wrap(net()[:4]), *net()[4:]), torch.zeros(1, 3, 4, 4))
    assert built[2] == ["0.0.width", "0.3.width"]


def test_what_is_compiled_after_a_network_was_made_elastic_works():
    dimensions(net, torch.zeros(1, 3, 4, 4))
    assert torch.compile(lambda x: 2 * x if isinstance(x, torch.Tensor) else x, backend="eager")(
        torch.ones(1)
    ).equal(torch.full((1,), 2.0))


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.conv(x)


HOOKS = {
    "forward": lambda m: m.register_forward_hook(nothing),
    "before forward": lambda m: m.register_forward_pre_hook(nothing),
    "backward": lambda m: m.register_full_backward_hook(nothing),
    "before backward": lambda m: m.register_full_backward_pre_hook(nothing),
    "SpectralNorm": nn.utils.spectral_norm,
    "L1Unstructured": partial(prune.l1_unstructured, name="weight", amount=0.5),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("inside", [".conv", ""])
def test_a_module_with_a_hook_stays_as_it_is_and_keeps_it(name, inside):
    if not inside and name[0].isupper():
        return  # a hook of a layer
    with torch.random.fork_rng(devices=[]):
        made = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1), Part())
        HOOKS[name](made.get_submodule(f"3{inside}"))
        model = bn.elasticize(made, torch.zeros(1, 3, 4, 4))
    (row,) = (row for row in model.report.rows if row.module == f"3{inside}")
    kind = name if name[0].isupper() else "nothing"
    assert row.reason == f"stays as it is: has a hook, {kind}"
    assert [d.name for d in model.space.dimensions] == ["0.width"]
    kept = model.net.get_submodule(f"3{inside}")
    hooks = [*kept._forward_hooks, *kept._forward_pre_hooks, *kept._backward_hooks]
    assert [*hooks, *kept._backward_pre_hooks]
