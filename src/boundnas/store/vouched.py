"""Records that carry a sum over what they say, so that none is believed that was edited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from boundnas.errors import RunError


def vouched(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A record with its sum, which depends on the record before it, too.

    Args:
        record: Anything JSON can hold by names, without ``"sum"``.
        before: The sum of the record that it follows, if it follows one. So rows of a journal that
            are left out, doubled, moved or of another journal are as good as edited.

    Examples:
        >>> vouched({"accuracy": 0.5})
        {'accuracy': 0.5, 'sum': '6d40636b231a0ce3'}
    """
    text = json.dumps(dict(record), sort_keys=True, allow_nan=False)
    return {**record, "sum": hashlib.sha256(before.encode() + text.encode()).hexdigest()[:16]}


def check_vouched(record: Mapping[str, Any], before: str = "") -> str:
    """The sum of a record that was read, provided that it is right.

    Raises:
        RunError: It is missing or not that of this record after the one before.
    """
    said = {name: value for name, value in record.items() if name != "sum"}
    try:
        found = vouched(said, before)["sum"]
    except ValueError:  # infinite numbers, which are never written
        found = None
    if found is None or record.get("sum") != found:
        raise RunError(
            "is not what was written there by its sum: it was edited, made up, moved, or what "
            "stood before it was"
        )
    return str(found)
