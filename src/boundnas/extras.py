"""Libraries that only some work needs; the package's extras install them."""

from __future__ import annotations

from importlib.util import find_spec

from boundnas.errors import ExtraError

EXTRAS = {
    "PIL": "data",
    "sklearn": "data",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "matplotlib": "report",
    "scipy": "report",
    "tensorboard": "tensorboard",
    "optuna": "search",
}
"""The extra that installs each module."""


def require(work: str, *modules: str) -> None:
    """Refuse work whose libraries are missing, before anything of it is done.

    Args:
        work: What needs them, as the first words of a message.
        modules: Names in `EXTRAS`.

    Raises:
        ExtraError: Names those that are missing and the command that installs them.

    Examples:
        >>> require("export.formats: onnx", "onnx", "onnxruntime", "onnxscript")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS[module] for module in missing}))
        raise ExtraError(
            f"{work} needs {', '.join(missing)}, not installed here; run "
            f"pip install 'boundnas[{extras}]'"
        )
