"""The card of an exported network, for the person who uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from boundnas.cost import COSTS
from boundnas.data import ImageData
from boundnas.data.description import preparation
from boundnas.deploy.formats import Format
from boundnas.report.markup import markdown
from boundnas.search import FrontNetwork


def card(network: FrontNetwork, data: ImageData, formats: Sequence[Format]) -> str:
    """What a person needs to know to use the network: numbers, input, output, how to load it."""
    channels, height, width = data.shape
    metric, name = network.metric, markdown(network.metric.name)
    usage = {
        "onnx": (
            "```python\nimport onnxruntime\n\n"
            'session = onnxruntime.InferenceSession("model.onnx")\n'
            'logits = session.run(None, {"images": images})[0]  # float32 numpy array\n```\n'
        ),
        "pt2": (
            "```python\nimport torch\n\n"
            'net = torch.export.load("model.pt2").module()\n'
            "logits = net(images)  # float32 tensor\n```\n"
        ),
    }
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
        + "".join(usage[kind] + "\n" for kind in formats)
        + f"| Dimension | Value |\n|---|---|\n{settings}\n"
    )
