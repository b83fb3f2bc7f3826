"""``python -m studies fig4``: run a whole comparison of the paper, from a checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from boundnas.app.cli import expanded, guarded, orderly
from studies import reproduce

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@guarded
def comparison(
    figure: Annotated[str, typer.Argument(help="Figure of the paper, such as fig4.")],
    scale: Annotated[str, typer.Option(help="small, for two cores, or paper.")] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    out: Annotated[
        Path, typer.Option(callback=expanded, help="Folder for runs and comparisons.")
    ] = Path("runs/studies"),
    data: Annotated[Path, typer.Option(help="Folder with a folder per data set.")] = Path("data"),
) -> None:
    """Run a whole comparison of the paper; an interrupted one continues."""
    for folder in reproduce(figure, out, scale, seeds, jobs, data):
        print((folder / "comparison.md").read_text())
        print(f"Comparison: {(folder / 'comparison.html').resolve()}")


def run(arguments: Sequence[str] | None = None) -> None:
    """The command, with the output and the exit codes of ``boundnas``.

    Args:
        arguments: Those of the command line by default.
    """
    with orderly():
        app(arguments, prog_name="python -m studies")


if __name__ == "__main__":
    run()
