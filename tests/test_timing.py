"""Calls timed in turn, in runtimes whose times are known; nothing here depends on a real clock."""

import re
from itertools import cycle

import pytest
import torch
from tests.latency import Fake, extracted, latency_model, registered
from torch import nn

import boundnas as bn
from boundnas.engine.threads import cores
from boundnas.errors import CostError, ExtraError, RunError
from boundnas.latency import runtimes
from boundnas.latency.onnx_file import onnx_of
from boundnas.latency.runtimes import RUNTIMES, Runtime, register, runtime_of
from boundnas.latency.timing import MOST_CALLS, SHORTEST, WARM_UPS, Times, in_turn
from boundnas.latency.whole import whole


def call(runtime, takes):
    """A call that takes these nanoseconds, one after the other, over and over."""
    each = cycle(takes)
    return lambda: runtime.spend(next(each))


def test_a_call_has_the_median_and_quartiles_of_its_rounds():
    fake = Fake()
    slow = [SHORTEST * n for n in (1, 2, 3, 4, 50)]
    # Each third call is timed, after those that warm up.
    (found,) = in_turn([call(fake, slow)], 5, fake.clock)
    assert fake.calls == 6 * (WARM_UPS + 1)
    assert found == Times(3 * SHORTEST, 2 * SHORTEST, 4 * SHORTEST)
    assert found.spread == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("takes", "often"),
    [(SHORTEST * 3, 1), (SHORTEST, 1), (SHORTEST - 1, 2), (SHORTEST // 4, 4), (1, MOST_CALLS)],
)
def test_short_calls_are_timed_several_at_once(takes, often):
    fake = Fake()
    (found,) = in_turn([call(fake, [takes])], 3, fake.clock)
    assert fake.calls == WARM_UPS + 1 + 3 * (WARM_UPS + often)
    assert found == Times(takes, takes, takes)


def test_a_clock_that_stands_still_is_no_division_by_zero():
    assert in_turn([lambda: None], 2, lambda: 0) == [Times(0, 0, 0)]
    assert Times(0, 0, 0).spread == 0


def test_calls_have_their_turns_round_by_round():
    fake, order = Fake(), []

    def noting(name):
        return lambda: (order.append(name), fake.spend(SHORTEST))

    in_turn([noting("a"), noting("b")], 2, fake.clock)
    turn = ["a"] * (WARM_UPS + 1) + ["b"] * (WARM_UPS + 1)
    assert order == turn * 3


def test_times_are_whole_nanoseconds():
    assert Times.of([1, 2]) == Times(2, 1, 2)
    assert all(type(t) is int for t in vars(Times.of([1.5, 2.6])).values())


@pytest.fixture
def net():
    model = latency_model("own_network")
    return extracted(model, model.space.smallest)


def test_whole_networks_and_files_are_timed_in_a_runtime_by_its_name(net, tmp_path):
    file = tmp_path / "net.bin"
    file.write_bytes(b"x" * 321)
    with registered(Fake):
        nodes = Fake().nodes(net)
        assert nodes > 2_000
        expected = [5_000 + nodes, 321 * 4, 123 * 4]
        found = whole([net, file, b"x" * 123], "fake", batch=4, rounds=3)
        assert [t.median for t in found] == expected
        assert whole([str(file)], "fake", rounds=1) == [Times(321, 321, 321)]


def test_a_network_that_does_not_say_what_it_takes_is_refused():
    with registered(Fake), pytest.raises(CostError, match="ReLU: it does not say what it takes"):
        whole([nn.ReLU()], "fake")


def test_a_file_that_is_missing_is_refused(tmp_path):
    with registered(Fake), pytest.raises(RunError, match=r"gone\.onnx"):
        whole([tmp_path / "gone.onnx"], "fake")


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
@pytest.mark.parametrize("space", ["own_network", "tokens", "resnet1d", "elasticized text"])
def test_a_real_runtime_runs_networks_of_every_kind(name, space):
    model = latency_model(space)
    net = extracted(model, model.space.largest)
    before = torch.get_num_threads()
    (found,) = whole([net], name, batch=2, rounds=2)
    assert 0 < found.lower <= found.median <= found.upper
    assert torch.get_num_threads() == before


def test_files_run_with_the_batch_that_is_asked_for(net, tmp_path):
    path = bn.export(net, tmp_path / "net.onnx")
    assert all(t.median > 0 for t in whole([path, path.read_bytes()], batch=3, rounds=1))


def test_a_file_of_another_batch_is_refused():
    content = onnx_of(nn.ReLU(), [torch.zeros(2, 3)])
    with pytest.raises(CostError, match=r"takes batches of 2, found batch 1; ask for batch=2"):
        whole([content])
    with pytest.raises(CostError, match="onnxruntime cannot run this network: "):
        whole([content[:50]])


def test_pytorch_runs_no_files():
    with pytest.raises(CostError, match="torch: it runs no files; give it networks"):
        whole([b"anything"], "torch")


def test_what_the_faster_exporter_cannot_write_the_other_one_does():
    class Repeats(nn.Module):
        def forward(self, x):
            return x.repeat_interleave(2, -1)  # as attention with groups of queries

    runtime = runtime_of("onnxruntime", 1)
    (found,) = runtime.load(Repeats(), [torch.tensor([[1.0, 2.0]])])()
    assert found.tolist() == [[1, 1, 2, 2]]


def test_what_onnx_has_not_is_refused_with_the_reason():
    class Strange(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(CostError, match=r"no ONNX file can be made .*bessel.*runtime='torch'"):
        onnx_of(Strange(), [torch.zeros(1)])


def test_unknown_runtimes_and_threads_that_are_not_there_are_refused():
    with pytest.raises(CostError, match=r"runtime 'tensorrt' is unknown; there are onnxruntime, "):
        runtime_of("tensorrt", 1)
    for threads in (0, cores() + 1):
        with pytest.raises(CostError, match=f"threads is 1 to {cores()}, .* found {threads}"):
            runtime_of("torch", threads)


def test_the_runtime_is_given_its_threads():
    assert runtime_of("torch", 1).threads == 1
    runtime = runtime_of("torch", cores())
    before = torch.get_num_threads()
    with runtime.in_use():
        assert torch.get_num_threads() == cores()
    assert torch.get_num_threads() == before


def test_each_network_is_compiled_however_many_of_a_kind_there_are(monkeypatch):
    compiled, seen = torch.compile, []

    def counted(graph, inputs):
        seen.append([x.shape[0] for x in inputs if x.dim()][-1])
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda net, **given: compiled(net, backend=counted, **given)
    )
    runtime = runtime_of("compile", 1)
    del seen[:]
    calls = [runtime.load(Scaled(size), [torch.ones(size)]) for size in range(1, 12)]
    assert seen == list(
        range(1, 12)
    )  # torch compiles eight of one code, and runs others as they are
    assert [call().tolist() for call in calls] == [[2.0] * size for size in range(1, 12)]
    assert seen == list(range(1, 12))


class Scaled(nn.Module):
    """Twice its input."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 2.0))

    def forward(self, x):
        return x * self.weight


def test_a_runtime_of_ones_own_has_a_name_that_is_free():
    class Taken(Fake):
        name = "torch"

    class Nameless(Fake):
        name = ""

    for kind, message in [
        (Taken, r"Taken: the name 'torch' is taken"),
        (Nameless, r"Nameless: a runtime has a name, a text, found ''"),
        (Fake(), "a class that derives from boundnas.latency.Runtime, found <"),
        (int, "a class that derives from boundnas.latency.Runtime, found <class 'int'>"),
    ]:
        with pytest.raises(CostError, match=message):
            register(kind)
    assert "fake" not in RUNTIMES
    assert register(RUNTIMES["torch"]) is RUNTIMES["torch"]


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr("boundnas.extras.find_spec", lambda name: None)
    message = re.escape("latency in onnxruntime needs onnx, onnxruntime, not installed here; run")
    with pytest.raises(ExtraError, match=message):
        runtime_of("onnxruntime", 1)
    assert isinstance(runtime_of("torch", 1), Runtime)


def test_a_compiler_that_is_missing_is_refused_with_its_reason(monkeypatch):
    def broken(net, dynamic):
        def run(*inputs):
            raise RuntimeError("InvalidCxxCompiler: No working\nC++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(CostError, match=r"does not work here \(InvalidCxx.* No working C\+\+"):
        runtime_of("compile", 1)


def test_compiled_networks_run_where_torch_compile_works(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, dynamic: net)
    assert runtimes.Compiled.looks_ahead
    runtime = runtime_of("compile", 1)
    assert torch.equal(
        runtime.load(nn.ReLU(), [torch.tensor([-1.0, 2.0])])(), torch.tensor([0, 2.0])
    )
