import ast
import statistics
from graphlib import TopologicalSorter
from pathlib import Path

import boundnas

SOURCE = Path(boundnas.__file__).parent
TREES = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}

BOTTOM_TO_TOP = [
    "errors",
    "extras",
    "typed",
    "nested",
    "engine",
    "settings",
    "randomness",
    "task",
    "tasks",
    "space",
    "elastic",
    "supernet",
    "guard",
    "convert",
    "models",
    "store",
    "cost",
    "latency",
    "data",
    "method",
    "fit",
    "search",
    "config",
    "report",
    "deploy",
    "app",
    "__main__",
    "__init__",
]


def name_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("boundnas", *(p for p in parts if p != "__init__")))


MODULES = {name_of(path): tree for path, tree in TREES.items()}


def imports_of(tree):
    """Full names of the package's modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in inner)


def unit_of(module):
    """The module or folder just below the package that a module lies in."""
    return module.split(".")[1] if "." in module else "__init__"


def test_the_list_of_modules_is_complete():
    assert sorted(BOTTOM_TO_TOP) == sorted({unit_of(name) for name in MODULES})


def test_imports_point_down():
    level = {unit: i for i, unit in enumerate(BOTTOM_TO_TOP)}
    upwards = [
        f"{module} imports {imported}"
        for module, tree in MODULES.items()
        for imported in imports_of(tree)
        if imported in MODULES
        and unit_of(imported) != unit_of(module)
        and level[unit_of(imported)] > level[unit_of(module)]
    ]
    assert upwards == []


def test_the_package_needs_nothing_of_the_checkout():
    outside = {"studies", "benchmarks", "examples", "tests"}
    found = {n for tree in MODULES.values() for n in imports_of(tree) if n.split(".")[0] in outside}
    assert found == set()


def test_no_modules_import_each_other():
    graph = {module: set(imports_of(tree)) & set(MODULES) for module, tree in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_module_has_a_subject():
    words = {word for name in MODULES for word in name.split(".")}
    assert words.isdisjoint({"utils", "util", "common", "helpers", "helper", "misc", "tools"})


def lines_of(function):
    """Lines of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_files_and_functions_stay_small():
    functions = {
        f"{name}.{node.name}": lines_of(node)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert {p.name: n for p in TREES if (n := len(p.read_text().splitlines())) > 400} == {}
    lengths = sorted(functions.values())
    assert statistics.median(lengths) <= 8
    assert lengths[len(lengths) * 9 // 10] <= 25
    assert functions["boundnas.method.sandwich.step"] <= 40


RUNS_WHAT_IT_READS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "load_pickle", "import_module"}


def called(node):
    """The dotted name that a call calls, as far as it is one."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def dangers_of(tree):
    for imported in imports_of(tree):
        if imported.split(".")[0] in RUNS_WHAT_IT_READS:
            yield f"imports {imported}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in FORBIDDEN_CALLS | {"torch.load", "importlib.import_module"}:
            yield f"line {node.lineno}: calls {name}"
        if name.split(".")[-1] == "YAML" and options.get("typ", "'rt'") not in ("'rt'", "'safe'"):
            yield f"line {node.lineno}: reads YAML with typ={options['typ']}"
        if options.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: allows pickled arrays"


def test_reading_a_file_runs_no_code_but_what_a_configuration_names():
    found = {name: list(dangers_of(tree)) for name, tree in MODULES.items()}
    (named,) = found.pop("boundnas.app.importing")
    assert named.endswith("calls importlib.import_module")
    assert {name: each for name, each in found.items() if each} == {}
