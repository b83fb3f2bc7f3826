"""The card of an exported network, for the person who uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from torch import Tensor

from boundnas.cost import COSTS, LatencyTable
from boundnas.cost.latency import doubts_of
from boundnas.data import ImageData, Samples
from boundnas.deploy.formats import FILES, Format, input_names
from boundnas.deploy.quantize import CALIBRATION_IMAGES
from boundnas.nested import leaves
from boundnas.report.markup import markdown
from boundnas.search import FrontNetwork
from boundnas.store.records import Int8Record
from boundnas.store.times import LATENCY, NETWORK, LatencyRecord, ms
from boundnas.task import Classification, Task

_ONNX = (
    "```python\nimport onnxruntime\n\n"
    'session = onnxruntime.InferenceSession("{file}")\n'
    "{output} = session.run(None, {{{feed}}})[0]  # numpy arrays\n```\n"
)
_PT2 = (
    "```python\nimport torch\n\n"
    'net = torch.export.load("{file}").module()\n'
    "{output} = net({given})  # tensors\n```\n"
)
_WEIGHTS = (
    "```python\nfrom safetensors.torch import load_file\n\n"
    'net.load_state_dict(load_file("{file}"))  # net: bn.extract(model, arch)\n'
    "```\n"
)
_USAGE: dict[Format, str] = {"onnx": _ONNX, "pt2": _PT2, "int8": _ONNX, "safetensors": _WEIGHTS}


def card(
    network: FrontNetwork,
    data: Samples,
    task: Task,
    sizes: Mapping[Format, int],
    measured: Int8Record | None = None,
    latency: LatencyRecord | None = None,
    table: LatencyTable | None = None,
) -> str:
    """What a person needs to know to use the network: numbers, input, output, how to load it.

    Args:
        network: The network.
        data: What it was trained on.
        task: What it was trained to do.
        sizes: Bytes of the file of each format that there is.
        measured: What the INT8 file is worth, if there is one.
        latency: How long it takes, if that was measured.
        table: What predicted that, if it was and is known.
    """
    noun = "image" if isinstance(data, ImageData) else "sample"
    metric, name = network.metric, markdown(network.metric.name)
    others = "".join(
        f"| Cost {markdown(cost)} | {value:,} |\n"
        for cost, value in network.costs.items()
        if cost not in {*COSTS, LATENCY}
    )
    times = "".join(f"| {k} | {v} |\n" for k, v in latency_rows(network.costs, latency, table))
    settings = "\n".join(
        f"| {markdown(key)} | {markdown(value)} |" for key, value in network.arch.values.items()
    )
    return (
        f"# Network of {network.macs / 1e6:.4g} MMACs for {markdown(data.name)}\n\n"
        "| | |\n|---|---|\n"
        f"| MACs of one {noun} | {network.macs:,} |\n"
        f"| Parameters | {network.parameters:,} |\n{others}"
        f"{times}"
        f"| Validation {name} (selected by) | {metric.shown(network.validation)} |\n"
        f"| Test {name} | {metric.shown(network.test)} |\n\n"
        f"{_input(data)}\n\n{_output(data, task)}\n\n"
        + "".join(_usage(kind, data, task) + "\n" for kind in sizes)
        + _files(network, sizes, measured)
        + f"| Dimension | Value |\n|---|---|\n{settings}\n"
    )


def latency_rows(
    costs: Mapping[str, int], latency: LatencyRecord | None, table: LatencyTable | None
) -> Iterator[tuple[str, str]]:
    """What a network's latency was predicted to be, and what it was measured to be.

    Args:
        costs: By name; a prediction is among them where the run's cost was latency.
        latency: What was measured, if anything was.
        table: What predicted it, if that is known.
    """
    if LATENCY in costs:
        yield "Latency, predicted", f"{ms(costs[LATENCY])} ms"
        if table is not None:
            yield "Predicted by a table", markdown(table.where)
        doubts = doubts_of(table, [] if latency is None else [latency])
        yield from (("Take care", markdown(said)) for said in doubts)
    for name, times in (latency.times if latency else {}).items():
        yield f"Latency, {'measured' if name == NETWORK else f'`{name}` measured'}", times.said
    if latency is not None:
        yield "Measured in", markdown(latency.where)


def _input(data: Samples) -> str:
    """Names, types and shapes of the inputs, and how they come to be."""
    each = []
    for name, (_, x) in zip(input_names(data.example), leaves(data.example), strict=True):
        kind, shape = str(x.dtype).removeprefix("torch."), ", ".join(map(str, x.shape))
        each.append(f"`{name}`: {kind}, shape (N, {shape})" if shape else f"`{name}`: {kind}, (N,)")
    return f"Input {', '.join(each)}, any N. {data.origin}"


def _output(data: Samples, task: Task) -> str:
    """What the outputs mean."""
    said = markdown(task.output)
    if data.classes is None:
        return f"Output `{task.output_name}`: float32; {said}."
    shape = f", shape (N, {len(data.classes)})" if isinstance(task, Classification) else ""
    return (
        f"Output `{task.output_name}`: float32{shape}; {said}, in this order:\n\n"
        f"    {json.dumps(data.classes, ensure_ascii=False)}"
    )


def _usage(kind: Format, data: Samples, task: Task) -> str:
    """Code that runs a file."""
    names = input_names(data.example)
    feed = ", ".join(f'"{name}": {name}' for name in names)
    given = names[0] if isinstance(data.example, Tensor) else "inputs"
    return _USAGE[kind].format(file=FILES[kind], feed=feed, given=given, output=task.output_name)


def _files(network: FrontNetwork, sizes: Mapping[Format, int], measured: Int8Record | None) -> str:
    """Size and score of each file, and what 8 bits change."""
    if not sizes:
        return ""
    name, shown = markdown(network.metric.name), network.metric.shown
    rows = f"| File | Bytes | Validation {name} | Test {name} |\n|---|---|---|---|\n"
    for kind, size in sizes.items():
        n = measured if kind == "int8" and measured is not None else network
        rows += f"| `{FILES[kind]}` | {size:,} | {shown(n.validation)} | {shown(n.test)} |\n"
    if measured is None:
        return rows + "\n"
    return rows + (
        f"\n`{FILES['int8']}` computes with weights and values in 8 bits (static quantization of "
        f"ONNX Runtime, ranges from up to {CALIBRATION_IMAGES} training images). Measured with the "
        f"file itself, the validation {name} goes from {shown(network.validation)} to "
        f"{shown(measured.validation)}, the test {name} from {shown(network.test)} to "
        f"{shown(measured.test)}.\n\n"
    )
