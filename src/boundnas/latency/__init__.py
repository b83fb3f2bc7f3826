"""How long networks take on a device: measured block by block, predicted for every one of them."""

from boundnas.latency.measuring import measure
from boundnas.latency.runtimes import RUNTIMES, Runtime, register
from boundnas.latency.timing import Times
from boundnas.latency.whole import whole

__all__ = ["RUNTIMES", "Runtime", "Times", "measure", "register", "whole"]
