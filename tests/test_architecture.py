"""The architecture, read from the source: floors, what may be imported where, and documentation.

The files are parsed, not run; only the last test starts Python.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tinygrad_rnn"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

# A file imports only from lower floors, and from its own floor only what lies in the same folder.
FLOORS = {
    "gpu_setup.py": 0,
    "backend.py": 0,
    "precision.py": 0,
    "printing.py": 0,
    "autodiff.py": 0,
    "ops/": 1,
    "modes.py": 2,
    "philox.py": 2,
    "random.py": 2,
    "graph.py": 2,
    "promotion.py": 2,
    "writing.py": 2,
    "tensor.py": 2,
    "creation.py": 2,
    "program_text.py": 2,
    "program.py": 2,
    "cuda.py": 3,
    "autograd/": 3,
    "scan/": 4,
    "nn/": 5,
    "optim/": 5,
    "decoding.py": 5,
    "by_hand/": 6,  # derived without the engine, and then compared with its layers
    "utils/": 6,
    "io/": 6,
    "diagnose/": 7,
    "doctor/": 7,
    "__init__.py": 8,
    "char_lm/": 9,
    "cli/": 10,
}

# What takes long to import, or need not be installed, is imported by the function that needs it.
HEAVY = {"click", "cupy", "cupyx", "matplotlib", "safetensors", "scipy", "torch", "tqdm"}

# The only files that name CuPy. All others ask `backend.namespace` for the library of an array.
GPU_FILES = {"gpu_setup.py", "backend.py", "scan/cuda.py"}


def place(name):
    """The row of FLOORS that a file belongs to: the longest that fits."""
    fitting = [row for row in FLOORS if name == row or (row.endswith("/") and name.startswith(row))]
    assert fitting, f"{name} has no floor"
    return max(fitting, key=len)


def tree(name):
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imports(body):
    """Every import below some statements, but for those that only the type checker sees."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(node.orelse)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports(ast.iter_child_nodes(node))


def functions(name):
    return [
        n for n in ast.walk(tree(name)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def roots(node):
    """The top-level packages that an import names."""
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return {alias.name.partition(".")[0] for alias in node.names}


def file_of(module):
    """The file of a module of the package, or None if there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.exists():
            return str(candidate.relative_to(PACKAGE))
    return None


def siblings(name):
    """The files of the package that a file imports."""
    found = set()
    for node in imports(tree(name).body):
        if "tinygrad_rnn" not in roots(node):
            continue
        if isinstance(node, ast.Import):
            found.update(file_of(alias.name) for alias in node.names)
            continue
        for alias in node.names:  # a module, or a name inside one
            found.add(file_of(f"{node.module}.{alias.name}") or file_of(node.module))
    return found - {name}


@pytest.mark.parametrize("name", NAMES)
def test_files_import_from_lower_floors(name):
    own = place(name)
    for other in siblings(name):
        row = place(other)
        same_folder = Path(row).parent == Path(own).parent if not row.endswith("/") else row == own
        allowed = FLOORS[row] < FLOORS[own] or (FLOORS[row] == FLOORS[own] and same_folder)
        assert allowed, f"{name} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[row]})"


def test_no_file_imports_itself_by_way_of_others():
    above = {name: siblings(name) - {"__init__.py"} for name in NAMES}
    while True:
        free = [name for name, others in above.items() if not others & above.keys()]
        if not free:
            break
        for name in free:
            del above[name]
    assert not above, f"these import each other: {sorted(above)}"


@pytest.mark.parametrize("name", NAMES)
def test_functions_import_nothing_of_the_package(name):
    """A late import hides a cycle. What is heavy, or seldom needed of Python's own, may be late."""
    for function in functions(name):
        for node in imports(function.body):
            late = HEAVY | sys.stdlib_module_names
            assert roots(node) <= late, f"{name}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", NAMES)
def test_imports_are_absolute_and_by_name(name):
    for node in imports(tree(name).body):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            assert node.names[0].name != "*", f"{name}:{node.lineno}: import *"


@pytest.mark.parametrize("name", sorted(set(NAMES) - GPU_FILES))
def test_cupy_is_named_in_few_files(name):
    source = tree(name)
    texts = {id(n.value) for n in ast.walk(source) if isinstance(n, ast.Expr)}  # docstrings
    for node in ast.walk(source):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not roots(node) & {"cupy", "cupyx"}, f"{name}:{node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id not in ("cupy", "cupyx"), f"{name}:{node.lineno}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            assert "cupy" not in node.value, f"{name}:{node.lineno}"


def documented(node, inside=""):
    """(where, docstring) of the public classes, functions and methods below a node."""
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef) or child.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in child.decorator_list}
        if "overload" in decorators or f"{child.name}.setter" in decorators:
            continue
        yield f"{inside}{child.name}", ast.get_docstring(child)
        if isinstance(child, ast.ClassDef):
            yield from documented(child, f"{inside}{child.name}.")


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_is_documented(name):
    missing = [where for where, text in documented(tree(name)) if not text]
    assert not missing


def folders():
    wanted = ("tinygrad_rnn", "tests", "examples", "benchmarks", "docs")
    return sorted(path for folder in wanted for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", folders(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_importing_the_package_imports_numpy_and_nothing_heavy():
    program = "import sys, tinygrad_rnn; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert not loaded & HEAVY
