"""Ground truth: all networks of a small space trained alone, and what bounds keep of the best.

    python -m studies.truth OUT --seeds 2

Every network that was measured is a line in OUT, and is not measured again. ``--told`` measures
nothing, and tells what whole seeds there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boundnas.app.cli import guarded, orderly
from boundnas.store.files import write_json, write_text
from studies.truth.measured import begin, measure
from studies.truth.page import picture, tables
from studies.truth.space import Setting, setting
from studies.truth.told import numbers

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@guarded
def study(
    out: Annotated[Path, typer.Argument(help="Folder of the numbers, the picture and the runs.")],
    seeds: Annotated[int, typer.Option(min=1, help="Of networks alone and of supernets.")] = 2,
    told: Annotated[bool, typer.Option(help="Only tell what is there.")] = False,
) -> None:
    """Train all networks alone and in supernets, and compare; resumable."""
    made = setting()
    begin(made, out)
    if not told:
        measure(made, out, seeds)
    tell(made, out)


def tell(made: Setting, out: Path) -> None:
    """Write and print what is there."""
    found = numbers(made, out)
    write_json(out / "truth.json", found)
    write_text(out / "truth.svg", picture(made, out))
    print(tables(found))


def run() -> None:
    """The command, with the output and the exit codes of ``boundnas``."""
    with orderly():
        app(prog_name="python -m studies.truth")


if __name__ == "__main__":
    run()
