"""How long networks take on a device: measured block by block, predicted for every one of them."""

from boundnas.latency.blocks import Block, blocks_of
from boundnas.latency.copies import Copies, copies
from boundnas.latency.elsewhere import collect, write_plan
from boundnas.latency.grid import Plan
from boundnas.latency.measuring import measure
from boundnas.latency.onnx_file import onnx_of
from boundnas.latency.runtimes import RUNTIMES, Runtime, register, runtime_of
from boundnas.latency.timing import Times
from boundnas.latency.whole import whole

__all__ = [
    "RUNTIMES",
    "Block",
    "Copies",
    "Plan",
    "Runtime",
    "Times",
    "blocks_of",
    "collect",
    "copies",
    "measure",
    "onnx_of",
    "register",
    "runtime_of",
    "whole",
    "write_plan",
]
