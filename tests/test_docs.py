"""The code in README and docs runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def blocks(page):
    """The blocks of code of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def python(page):
    """The code of a page, all of it in order."""
    return "\n".join(blocks(page))


MAIN, OWN = blocks(ROOT / "README.md")
CODE = {"README.md": MAIN, "README.md, own data and task": OWN}
"""Of the README each block by itself, as people copy it."""
CODE |= {
    str(p.relative_to(ROOT)): python(p) for p in sorted((ROOT / "docs").rglob("*.md")) if blocks(p)
}


@pytest.mark.parametrize("name", CODE)
def test_python_in_the_docs_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(CODE[name], name, "exec"), {"__name__": "docs"})  # noqa: S102
    exported = re.findall(r'export\(\w+, "([^"]+)"', CODE[name])
    assert all((tmp_path / name).stat().st_size > 1000 for name in exported)


def test_own_data_and_a_task_of_three_functions_take_at_most_twenty_five_lines_of_the_readme():
    assert len([line for line in OWN.splitlines() if line.strip()]) <= 25
    assert re.search(r"Own\(loss, distance, \w+, .*Data\(", OWN, re.DOTALL)


def test_your_own_network_takes_at_most_forty_lines():
    code = python(ROOT / "docs/own-network.md")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 40


def test_links_between_pages_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
