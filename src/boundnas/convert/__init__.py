"""Any PyTorch network as a supernet: `elasticize`."""

from boundnas.convert.elasticize import elasticize
from boundnas.convert.rules import Rule

__all__ = ["Rule", "elasticize"]
