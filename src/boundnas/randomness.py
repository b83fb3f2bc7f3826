"""Named random streams: every draw is a function of (seed, stream, step)."""

import hashlib

import torch


def stream(seed: int, name: str, step: int = 0) -> torch.Generator:
    """A CPU generator for one use at one step.

    Streams are independent of one another, so adding one does not shift the others, processes
    agree without talking, and a resumed run needs to know only its step.

    Args:
        seed: The run's seed, any integer.
        name: What the numbers are used for, such as ``"min_policy"``.
        step: The training step, epoch or round they are used in.

    Returns:
        A freshly seeded ``torch.Generator`` on the CPU.

    Examples:
        >>> a = torch.rand(1, generator=stream(0, "demo", 3))
        >>> b = torch.rand(1, generator=stream(0, "demo", 3))
        >>> bool(a == b)
        True
    """
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
