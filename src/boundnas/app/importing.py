"""Code that a configuration names is run here, and nowhere else."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from boundnas.supernet.place import first_line


class ImportingError(Exception):
    """Something that is named is not there, or cannot be used; says which and why."""


class _Given(SourceFileLoader):
    """Runs the text that was read, never compiled code of an older one."""

    def __init__(self, name: str, path: str, text: bytes) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        """The code of the text."""
        code: CodeType = self.source_to_code(self._text, self.path)
        return code


def imported(module: str, name: str) -> Any:
    """What a file or module holds under a name.

    Args:
        module: Path of a file that ends in ``.py``, or name of a module as Python imports it.
        name: The name, with dots for what lies within.

    Raises:
        ImportingError: It is not there, or importing fails.
    """
    held: Any = _file(Path(module)) if module.endswith(".py") else _module(module)
    for part in name.split("."):
        try:
            held = getattr(held, part)
        except AttributeError:
            raise ImportingError(f"{module} has no {name}{_hint(part, held)}") from None
        except Exception as error:  # of what computes its attributes
            raise ImportingError(
                f"{name} of {module} fails{at_line(module, error)}, {first_line(error)}"
            ) from error
    return held


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ImportingError(_failed(name, error)) from error
        raise ImportingError(
            f"there is no module {error.name}; install it, or name a file as FILE.py:NAME"
        ) from error
    except (Exception, SystemExit) as error:
        raise ImportingError(_failed(name, error)) from error


def _file(path: Path) -> ModuleType:
    """A file as a module, which is another one once its text has changed."""
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImportingError(f"{path} cannot be read ({reason})") from error
    digest = hashlib.sha256(f"{path}\n".encode(errors="surrogateescape") + text).hexdigest()
    name = f"{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path, loader=_Given(name, str(path), text))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    folder = str(path.parent)
    known = folder in sys.path
    sys.path.insert(0, folder)  # where it finds its neighbours, as Python lets a script
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ImportingError(_failed(str(path), error)) from error
    finally:
        sys.path.remove(folder)
        if not known:
            sys.path.append(folder)  # for what it imports later
    return module


def at_line(file: str, error: BaseException) -> str:
    """The line of a file that an error came from last, in words; nothing where it did not."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return "" if line is None else f" at its line {line}"


def _failed(what: str, error: BaseException) -> str:
    return f"importing {what} fails{at_line(what, error)}, {first_line(error)}"


def _hint(part: str, held: object) -> str:
    own = [name for name in vars(held) if name[0] != "_"] if hasattr(held, "__dict__") else []
    close = difflib.get_close_matches(part, own, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else ""
