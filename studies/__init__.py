"""The paper's comparisons: which runs each of its figures needs, and what is read off them."""

from studies.reproduce import reproduce

__all__ = ["reproduce"]
