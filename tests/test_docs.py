"""The code in README and docs runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [
    p
    for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```python" in p.read_text()
]


def python(page):
    """The code of a page, all of it in order."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(python(page), str(page), "exec"), {"__name__": "docs"})  # noqa: S102
    exported = re.findall(r'export\(\w+, "([^"]+)"', python(page))
    assert all((tmp_path / name).stat().st_size > 1000 for name in exported)


def test_your_own_network_takes_at_most_forty_lines():
    code = python(ROOT / "docs/own-network.md")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 40


def test_links_between_pages_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
