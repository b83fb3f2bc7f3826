"""The configuration of a run: read from YAML with all faults at once, and written back."""

from boundnas.config.run import MAX_BYTES, OBSERVERS, TASKS, RunConfig, named_task, read_config
from boundnas.config.written import flow, write_config

__all__ = [
    "MAX_BYTES",
    "OBSERVERS",
    "TASKS",
    "RunConfig",
    "flow",
    "named_task",
    "read_config",
    "write_config",
]
