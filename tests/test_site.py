"""The site of the docs: every page has its place, every public name its entry, and it builds."""

import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import boundnas
from boundnas import cost, data, elastic, latency, models, tasks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PUBLIC = (boundnas, elastic, models, cost, latency, data, tasks)


def pages(nav):
    """Every page that a navigation leads to."""
    for entry in nav:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else pages(target)


def test_every_page_of_the_docs_is_found_from_the_navigation():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(pages(nav)) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


def test_every_public_name_has_its_place_in_the_reference():
    named = re.findall(r"^::: (\S+)$", "".join(p.read_text() for p in DOCS.rglob("*.md")), re.M)
    found = [getattr(package, name) for package in PUBLIC for name in package.__all__]
    documented = {
        f"{each.__module__}.{each.__qualname__}"
        for each in found
        if inspect.isclass(each) or inspect.isfunction(each)
    }
    assert sorted(named) == sorted(documented)


def test_examples_in_docstrings_are_shown_as_code():
    texts = {p.name: p.read_text() for p in Path(boundnas.__file__).parent.rglob("*.py")}
    found = [name for name, text in texts.items() if re.search(r"^ +Example:$", text, re.M)]
    assert found == [], "write Examples:, which the reference shows as code"


def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "Train a supernet and its boundaries" in reference
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', reference)
