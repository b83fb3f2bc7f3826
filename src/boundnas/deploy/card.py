"""The card of an exported network, for the person who uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from boundnas.cost import COSTS
from boundnas.data import ImageData
from boundnas.data.description import preparation
from boundnas.deploy.formats import FILES, Format
from boundnas.deploy.quantize import CALIBRATION_IMAGES
from boundnas.report.markup import markdown
from boundnas.search import FrontNetwork
from boundnas.store.records import Int8Record

_ONNX = (
    "```python\nimport onnxruntime\n\n"
    'session = onnxruntime.InferenceSession("{}")\n'
    'logits = session.run(None, {{"images": images}})[0]  # float32 numpy array\n```\n'
)
_PT2 = (
    "```python\nimport torch\n\n"
    'net = torch.export.load("{}").module()\n'
    "logits = net(images)  # float32 tensor\n```\n"
)
_USAGE: dict[Format, str] = {"onnx": _ONNX, "pt2": _PT2, "int8": _ONNX}


def card(
    network: FrontNetwork,
    data: ImageData,
    sizes: Mapping[Format, int],
    measured: Int8Record | None = None,
) -> str:
    """What a person needs to know to use the network: numbers, input, output, how to load it.

    Args:
        network: The network.
        data: What it was trained on.
        sizes: Bytes of the file of each format that there is.
        measured: What the INT8 file is worth, if there is one.
    """
    channels, height, width = data.shape
    metric, name = network.metric, markdown(network.metric.name)
    others = "".join(
        f"| Cost {markdown(cost)} | {value:,} |\n"
        for cost, value in network.costs.items()
        if cost not in COSTS
    )
    settings = "\n".join(
        f"| {markdown(key)} | {markdown(value)} |" for key, value in network.arch.values.items()
    )
    how = preparation(data.test)
    prepared = f" Image files are first {how}." if how else ""
    return (
        f"# Network of {network.macs / 1e6:.4g} MMACs for {markdown(data.name)}\n\n"
        "| | |\n|---|---|\n"
        f"| MACs of one image | {network.macs:,} |\n"
        f"| Parameters | {network.parameters:,} |\n{others}"
        f"| Validation {name} (selected by) | {metric.shown(network.validation)} |\n"
        f"| Test {name} | {metric.shown(network.test)} |\n\n"
        f"Input `images`: float32, shape (N, {channels}, {height}, {width}), any N. From pixel "
        "values 0 to 255, per channel: `(pixel / 255 - mean) / std` with "
        f"mean {list(data.mean)} and std {list(data.std)}.{prepared}\n\n"
        f"Output `logits`: float32, shape (N, {len(data.classes)}); the largest one is the class, "
        f"in this order:\n\n    {json.dumps(data.classes, ensure_ascii=False)}\n\n"
        + "".join(_USAGE[kind].format(FILES[kind]) + "\n" for kind in sizes)
        + _files(network, sizes, measured)
        + f"| Dimension | Value |\n|---|---|\n{settings}\n"
    )


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
