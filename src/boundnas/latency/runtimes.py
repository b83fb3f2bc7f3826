"""Runtimes that networks are timed in: ONNX Runtime, PyTorch, and a user's own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from boundnas.engine.threads import cores
from boundnas.errors import CostError
from boundnas.extras import require
from boundnas.latency.onnx_file import onnx_of


class Runtime(ABC):
    """What runs networks on this machine. One of a user's own derives from it and is registered.

    Args:
        threads: So many threads compute.
    """

    name: ClassVar[str]
    looks_ahead: ClassVar[bool] = False
    """Whether it computes of a map only those values that something reads."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    @property
    @abstractmethod
    def version(self) -> str:
        """Of the runtime; another one has other times."""

    @abstractmethod
    def load(self, net: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """A function that runs a network once on these inputs and returns when it is done.

        Args:
            net: A plain network in evaluation mode that takes the inputs one by one.
            inputs: A batch.

        Raises:
            CostError: The runtime cannot run it.
        """

    def load_file(self, content: bytes, batch: int) -> Callable[[], object]:
        """Likewise, of the content of a file in the runtime's own format, on noise.

        Raises:
            CostError: There are no files of it, or it cannot run this one.
        """
        raise CostError(f"{self.name}: it runs no files; give it networks")

    def clock(self) -> int:
        """Nanoseconds of a clock that never goes back."""
        return time.perf_counter_ns()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it the process is as the runtime needs it; afterwards as before."""
        yield


class OnnxRuntime(Runtime):
    """ONNX Runtime on the processor, with the optimizations that it does by itself."""

    name = "onnxruntime"

    def __init__(self, threads: int = 1) -> None:
        require("latency in onnxruntime", "onnx", "onnxruntime")
        super().__init__(threads)

    @property
    def version(self) -> str:
        """As the library says."""
        import onnxruntime  # takes long to import, and only this runtime needs it

        return str(onnxruntime.__version__)

    def load(self, net: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """See `Runtime`."""
        session = self._session(onnx_of(net, inputs))
        given = {f"input_{number}": x.numpy() for number, x in enumerate(inputs)}
        held = {each.name for each in session.get_inputs()}  # the exporter leaves out unused ones
        return _run(session, {name: x for name, x in given.items() if name in held})

    def load_file(self, content: bytes, batch: int) -> Callable[[], object]:
        """See `Runtime`; an axis without a number is the batch, whole numbers are zeros."""
        session = self._session(content)
        generator = torch.Generator().manual_seed(0)
        given = {}
        for each in session.get_inputs():
            shape = [n if isinstance(n, int) else batch for n in each.shape]
            if each.shape and shape[0] != batch:
                raise CostError(
                    f"this file takes batches of {shape[0]}, found batch {batch}; ask for "
                    f"batch={shape[0]}, or write the file with a batch of any size"
                )
            if each.type in _KINDS:
                given[each.name] = torch.zeros(shape, dtype=_KINDS[each.type]).numpy()
            else:
                drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
                given[each.name] = drawn.numpy()
        return _run(session, given)

    def _session(self, content: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3  # errors; it warns of what it optimizes away
        try:
            return onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of the runtime, whose errors have no common base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CostError(f"onnxruntime cannot run this network: {reason}") from error


_KINDS = {"tensor(int64)": torch.int64, "tensor(int32)": torch.int32, "tensor(bool)": torch.bool}
"""Types of inputs that are no numbers to compute with."""


def _run(session: Any, given: dict[str, Any]) -> Callable[[], object]:
    names = [each.name for each in session.get_outputs()]
    return lambda: session.run(names, given)


class Torch(Runtime):
    """PyTorch as it is, on the processor: every function is called from Python."""

    name = "torch"

    @property
    def version(self) -> str:
        """As the library says."""
        return str(torch.__version__)

    def load(self, net: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """See `Runtime`."""
        return torch.inference_mode()(partial(net, *inputs))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """See `Runtime`; PyTorch has its number of threads for the whole process."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class Compiled(Torch):
    """``torch.compile``. A block takes it seconds, so tables of it are coarse."""

    name = "compile"
    looks_ahead = True

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self.load(nn.ReLU(), [torch.zeros(1)])

    def load(self, net: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """See `Runtime`; compiled before it returns."""

        def call(*given: Tensor) -> object:
            return net(*given)

        # What is compiled is kept by code, eight at most of one; the ninth network would run as it
        # is, and be timed so. With code of its own each of them is compiled.
        call.__code__ = call.__code__.replace()
        compiled: Any = torch.compile(call, dynamic=False)
        run = super().load(compiled, inputs)
        try:
            run()
        except Exception as error:  # of the compiler, whose errors have no common base
            reason = " ".join(str(error).split())[:300]
            raise CostError(
                f"compile: torch.compile does not work here ({reason}); it needs a C++ compiler; "
                "measure in onnxruntime or torch"
            ) from error
        return run


RUNTIMES: dict[str, type[Runtime]] = {}
"""By name."""

Kind = TypeVar("Kind", bound=type[Runtime])


def register(runtime: Kind) -> Kind:
    """Let latency be measured in a runtime of one's own, by its name; also as a decorator.

    Raises:
        CostError: It is none, has no name, or that of another one.
    """
    name = getattr(runtime, "name", None)
    if not (isinstance(runtime, type) and issubclass(runtime, Runtime)):
        raise CostError(
            f"a runtime is a class that derives from boundnas.latency.Runtime, found {runtime!r}"
        )
    if not (isinstance(name, str) and name):
        raise CostError(f"{runtime.__name__}: a runtime has a name, a text, found {name!r}")
    if RUNTIMES.get(name, runtime).__qualname__ != runtime.__qualname__:
        raise CostError(f"{runtime.__name__}: the name {name!r} is taken; choose another")
    RUNTIMES[name] = runtime
    return runtime


for known in (OnnxRuntime, Torch, Compiled):
    register(known)


def runtime_of(name: str, threads: int) -> Runtime:
    """A runtime by its name, ready to load networks.

    Raises:
        CostError: There is none of this name, or not so many threads.
        ExtraError: Its library is missing.
    """
    if name not in RUNTIMES:
        raise CostError(
            f"runtime {name!r} is unknown; there are {', '.join(RUNTIMES)}, and those of your own "
            "after boundnas.latency.register"
        )
    if not 1 <= threads <= cores():
        raise CostError(
            f"threads is 1 to {cores()}, as many as this process may use cores, found {threads}"
        )
    return RUNTIMES[name](threads)
