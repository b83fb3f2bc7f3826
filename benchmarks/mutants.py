"""Do the tests notice when the source is changed? Mutants, drawn at random, and what kills them.

    python benchmarks/mutants.py --mutants 12 --jobs 2 --out mutants.json --table mutants.md

Of each area of the package so many places are drawn by the seed, and one change is made at each: a
comparison, an operator, a constant, a condition, a call that is left out. The tests of the area run
on a copy of the source with this one change; a mutant is killed when one of them fails. Survivors
are for people: a missing test, or a change that changes nothing ("equivalent", with a reason, in
EQUIVALENT below). Results are kept in ``--out`` as they come, and a run that was stopped goes on.
"""

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "boundnas"
LIMIT, TIMEOUT = 900, 7200.0
"""Seconds of CPU, and by the clock, after which a mutant counts as killed: its tests hang."""

AREAS = {
    "method": (
        ["method/**/*.py", "fit/guard.py", "fit/loop.py", "fit/recipe.py", "fit/schedule.py",
         "fit/start.py", "elastic/ghost.py", "task.py"],
        ["test_policy.py", "test_sandwich.py", "test_estimators.py", "test_distill.py",
         "test_attentive.py", "test_passes.py", "test_recipe.py", "test_task.py", "test_train.py",
         "test_observers.py", "test_gradient.py", "test_every_setting.py", "test_paths.py",
         "test_elastic.py",
         "reliability/test_non_finite.py", "test_ranks.py", "test_cli.py"],
    ),
    "cost": (
        ["cost/*.py", "space/*.py", "supernet/*.py"],
        ["test_cost.py", "test_cost_laws.py", "test_space.py", "test_passes.py", "test_paths.py",
         "test_refusals.py", "test_calibrate.py", "test_forwards.py", "test_extract.py",
         "test_elastic.py", "test_gradient.py", "test_train.py", "test_canonical.py",
         "test_written.py", "test_inputs.py"],
    ),
    "guard": (
        ["guard/*.py", "fit/match.py", "fit/identity.py"],
        ["test_guard.py", "test_paths.py", "test_match.py", "test_inputs.py", "test_modes.py",
         "test_identity.py", "test_refusals.py", "test_train.py", "test_task.py", "test_tasks.py",
         "reliability/test_differing_ranks.py"],
    ),
    "search": (
        ["search/*.py"],
        ["test_bench.py", "test_pareto.py", "test_journal.py", "test_genetic.py",
         "test_sampled.py", "test_screening.py", "test_workers.py", "test_canonical.py",
         "test_search.py", "test_search_again.py", "test_every_setting.py", "test_calibrate.py",
         "reliability/test_differing_ranks.py"],
    ),
    "store": (
        ["store/*.py"],
        ["test_store.py", "test_held.py", "test_checkpoint.py", "test_foreign_files.py",
         "test_report.py", "reliability/test_logs.py", "test_train.py",
         "reliability/test_one_process.py", "reliability/test_races.py",
         "reliability/test_kills.py", "reliability/test_full_disk.py",
         "reliability/test_damage.py"],
    ),
    "data": (
        ["data/*.py"],
        ["test_image_folder.py", "test_wild_folders.py", "test_decode.py", "test_torch_data.py",
         "test_data.py", "test_cifar.py", "test_imagenet.py", "test_array_pickle.py",
         "test_markup.py", "test_match.py"],
    ),
}  # fmt: skip
"""Files of the package, and the tests that must notice what is changed there."""

EQUIVALENT = {
    "d41692a1": "two more networks are tried before training; nothing else changes",
    "68e6d076": "candidates are measured one after the other, with the same results, only slower",
    "c3a50c6c": "a screened candidate's layers are not folded: equal but for rounding, only slower",
}
"""Mutants that compute the same, by their name in the table, with the reason."""

SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "all": "any", "any": "all", "amin": "amax", "amax": "amin"}


class Places(ast.NodeVisitor):
    """Every place of a module that can be changed, with the change as text and as a function."""

    def __init__(self):
        self.found = []

    def add(self, node, text, change):
        self.found.append((node.lineno, text, change))

    def visit_FunctionDef(self, node):
        # Annotations and docstrings change nothing that runs.
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(default)
        documented = ast.get_docstring(node) is not None
        for statement in node.body[documented:]:
            self.visit(statement)

    def visit_AnnAssign(self, node):
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node):
        """Texts of errors are tested where they matter, not word by word."""

    def visit_Assert(self, node):
        """Our own invariants."""

    def visit_JoinedStr(self, node):
        """Text."""

    def visit_If(self, node):
        text = f"if not ({ast.unparse(node.test)})"

        def change(node=node):
            node.test = ast.UnaryOp(ast.Not(), node.test)

        self.add(node, text, change)
        self.generic_visit(node)

    def visit_Compare(self, node):
        before = ast.unparse(node)
        if type(node.ops[0]) in SWAPS:

            def change(node=node):
                node.ops[0] = SWAPS[type(node.ops[0])]()

            self.add(node, f"{before}: {type(node.ops[0]).__name__} swapped", change)
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if type(node.op) in SWAPS:

            def change(node=node):
                node.op = SWAPS[type(node.op)]()

            self.add(node, f"{ast.unparse(node)}: {type(node.op).__name__} swapped", change)
        self.generic_visit(node)

    visit_BoolOp = visit_BinOp  # noqa: N815

    def visit_Constant(self, node):
        if isinstance(node.value, bool):

            def change(node=node):
                node.value = not node.value

            self.add(node, f"{node.value} flipped", change)
        elif isinstance(node.value, int | float):

            def change(node=node):
                node.value = node.value * 2 if node.value else 1

            self.add(node, f"{node.value} doubled (0 to 1)", change)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):
            text = f"left out: {ast.unparse(node)}"

            def change(node=node):
                node.value = ast.Constant(None)

            self.add(node, text, change)
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in NAMES:

            def change(node=node):
                where = "id" if isinstance(node.func, ast.Name) else "attr"
                setattr(node.func, where, NAMES[getattr(node.func, where)])

            self.add(node, f"{ast.unparse(node)}: {name} swapped", change)
        self.generic_visit(node)


def places(path):
    """The module's tree and its places; a place is found again by its number."""
    tree = ast.parse(path.read_text())
    found = Places()
    found.visit(tree)
    return tree, found.found


def drawn(area, number, seed):
    """``number`` mutants of an area: file, number of the place, line, and the change as text."""
    patterns, _ = AREAS[area]
    files = sorted({p for pattern in patterns for p in SOURCE.glob(pattern)})
    every = [
        (str(path.relative_to(SOURCE)), i, line, text)
        for path in files
        for i, (line, text, _) in enumerate(places(path)[1])
    ]
    return random.Random(f"{seed}/{area}").sample(every, min(number, len(every)))


def mutated(path, place):
    """The text of a module with one change."""
    tree, found = places(path)
    found[place][2]()
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree)))


def limited():
    """Have the system end a process that computes for ever; a busy machine is no fault."""
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))


def verdict(area, file, place):
    """What the area's tests say to a mutant: the first that fails, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src", Path(folder) / "src")
        (Path(folder) / "src" / "boundnas" / file).write_text(mutated(SOURCE / file, place))
        environment = {**os.environ, "PYTHONPATH": f"{folder}/src", "OMP_NUM_THREADS": "1"}
        stem = Path(file).stem
        tests = sorted(
            AREAS[area][1], key=lambda name: stem not in (ROOT / "tests" / name).read_text()
        )
        tests = [f"tests/{name}" for name in tests]  # those that speak of the file come first
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True,
                timeout=TIMEOUT, preexec_fn=limited,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "hangs"
    if not done.returncode:
        return None
    failed = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"exit {done.returncode}"


def name_of(file, line, text):
    """A short name that stays the same while the file does not change."""
    return hashlib.sha256(f"{file}:{line}:{text}".encode()).hexdigest()[:8]


def table(rows):
    """The results in Markdown."""
    lines = ["| mutant | area | place | change | killed by |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        by = (
            row["killed by"]
            or f"**survived**{': ' + EQUIVALENT[name] if name in EQUIVALENT else ''}"
        )
        change = row["change"].replace("|", "\\|")
        lines.append(f"| {name} | {row['area']} | `{row['place']}` | `{change[:120]}` | {by} |")
    killed = sum(row["killed by"] is not None for row in rows.values())
    equivalent = sum(row["killed by"] is None and n in EQUIVALENT for n, row in rows.items())
    lines += ["", f"{killed} of {len(rows)} killed, {equivalent} equivalent."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=12, help="of each area")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS))
    parser.add_argument("--out", type=Path, default=Path("mutants.json"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}

    def judge(area, file, place, line, text):
        name = name_of(file, line, text)
        if name not in rows:
            found = verdict(area, file, place)
            rows[name] = {
                "area": area, "place": f"{file}:{line}", "change": text, "killed by": found,
            }  # fmt: skip
            options.out.write_text(json.dumps(rows, indent=2))
            print(f"{name}  {file}:{line}  {text[:90]}  {found or 'SURVIVED'}", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        work = [
            pool.submit(judge, area, *mutant)
            for area in options.areas
            for mutant in drawn(area, options.mutants, options.seed)
        ]
        for each in work:
            each.result()
    if options.table:
        options.table.write_text(table(rows))
    print(table(rows).splitlines()[-1])


if __name__ == "__main__":
    main()
