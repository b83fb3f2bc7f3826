"""Names of classes and data sets as text that every file and report can hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from boundnas.errors import DataError

# Control characters, halves of surrogate pairs (bytes of a file name that are no UTF-8),
# and separators of lines and paragraphs.
_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that turn the direction of the text after them, and one that tells the order of bytes.
_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def escaped(text: object) -> str:
    r"""Text for a message: what would end its line, turn it or cannot be written is spelt out.

    Examples:
        >>> print(escaped("cat\nval_accuracy 1.0"))
        cat\nval_accuracy 1.0
    """
    return "".join(c.encode("unicode_escape").decode() if _unwritable(c) else c for c in str(text))


def some(texts: Sequence[str], separator: str, shown: int = 5) -> str:
    """The first few texts, and how many more there are."""
    rest = [f"and {len(texts) - shown} more"] if len(texts) > shown else []
    return separator.join([*texts[:shown], *rest])


def check_order(where: str, classes: object) -> None:
    """Refuse names of classes of which it is not said which is the first.

    Raises:
        DataError: Says what was found.
    """
    if not isinstance(classes, list | tuple):
        kind = "text" if isinstance(classes, str) else type(classes).__name__
        raise DataError(
            f"{where}: classes must be a tuple of names, in the order of the labels, found the "
            f"{kind} {classes!r:.80}"
        )


def check_classes(where: str, classes: Sequence[object]) -> None:
    """Refuse class names that a file or report cannot hold, or that stand there twice.

    Args:
        where: How messages name the data set.
        classes: The names, in the order of the labels.

    Raises:
        DataError: Lists all of them.
    """
    check_order(where, classes)
    if len(classes) < 2:
        found = ", ".join(map(escaped, classes)) or "none"
        raise DataError(f"{where}: needs at least 2 classes, found {found}")
    faults = [
        f"class {label}: {fault}"
        for label, name in enumerate(classes)
        if (fault := _fault(name)) is not None
    ]
    if faults:
        raise DataError(
            f"{where}: {len(faults)} of {len(classes)} class names cannot be written into every "
            "file and report; rename them:\n  " + some(faults, "\n  ", 20)
        )
    twice = _repeated(unicodedata.normalize("NFC", str(name)) for name in classes)
    if twice:
        raise DataError(
            f"{where}: class names must differ, but there is more than one "
            + " and more than one ".join(map(repr, twice))
        )


def check_name(name: object) -> None:
    """Refuse the name of a data set that a file or report cannot hold.

    Raises:
        DataError: Says why.
    """
    if (fault := _fault(name)) is not None:
        raise DataError(f"a data set cannot be named so in files and reports: {fault}")


def _fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"{name!r} is a {type(name).__name__} where text is needed"
    if not name.strip():
        return f"'{escaped(name)}' is blank"
    if any(map(_unwritable, name)):
        return f"'{escaped(name)}' has characters that cannot be written or seen"
    return None


def _unwritable(character: str) -> bool:
    return character in _MARKS or unicodedata.category(character) in _CATEGORIES


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
