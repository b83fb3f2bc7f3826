"""The HTML report of a run: one file, no network access, figures to point at."""

from boundnas.report.page import write_report

__all__ = ["write_report"]
