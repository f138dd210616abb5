"""Imports in tfdrl/ point down: each package may use only those of a lower rank."""

import ast
import pathlib
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "tfdrl"

#: The longest prefix of a module's name decides.
RANKS = {
    "tfdrl": 0,  # the package's own __init__
    "tfdrl.types": 0,
    "tfdrl.errors": 0,
    "tfdrl.topology": 0,
    "tfdrl.configuration": 0,
    "tfdrl.experiment": 0,
    "tfdrl.ops": 1,
    "tfdrl.environments": 1,
    "tfdrl.rpc": 1,
    "tfdrl.networks": 2,
    "tfdrl.agents": 2,
    "tfdrl.environments_tf": 2,
    "tfdrl.parts": 3,
    "tfdrl.architectures": 4,
    "tfdrl.launch": 5,
    "tfdrl.benchmarks": 6,  # measures whole runs
}
#: Standard library only, for every rank to use; a test below holds it to that.
ANYONES = "tfdrl.parts.locks"
#: Within a rank only these may use each other; within a package anybody may.
EQUALS = {("tfdrl.agents", "tfdrl.networks")}
#: What an architecture's page may import before a role runs.
RANK_ZERO = ("tfdrl.types", "tfdrl.errors", "tfdrl.topology", "tfdrl.experiment")
LIGHT = ("gin", "__future__", "dataclasses", "collections", "typing", "math", "enum", "pathlib")


def modules():
    for path in sorted(_PACKAGE.rglob("*.py")):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def package_of(module):
    """The entry of RANKS that a module belongs to."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in RANKS and (name != "tfdrl" or module == "tfdrl"):
            return name
    raise AssertionError(f"{module} has no rank; put it in a package of DESIGN or give it one")


def imports_of(path, at_top_only=False):
    """The full names of the modules (or module.name) that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the rank; write tfdrl...."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path, at_top_only=False):
    """tfdrl's own modules among them."""
    for name in imports_of(path, at_top_only):
        if name.split(".")[0] == "tfdrl":
            yield name if name in MODULES else name.rpartition(".")[0]


def test_every_module_has_a_rank():
    assert len(MODULES) > 40
    for module in MODULES:
        package_of(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    mine = package_of(module)
    for other in imported_modules(MODULES[module]):
        theirs = package_of(other)
        is_allowed = (
            RANKS[theirs] < RANKS[mine]
            or theirs == mine
            or other == ANYONES
            or (mine, theirs) in EQUALS
            or (RANKS[mine] == RANKS[theirs] == 0)
        )
        assert is_allowed, f"{module} (rank {RANKS[mine]}) imports {other} (rank {RANKS[theirs]})"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tfdrl.architectures.")])
def test_architectures_import_only_rank_zero_at_their_top(module):
    names = set(imports_of(MODULES[module], at_top_only=True))
    for name in names:
        is_allowed = name.split(".")[0] in LIGHT or name.startswith(RANK_ZERO)
        assert is_allowed, f"{module} imports {name} at its top"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
@pytest.mark.parametrize("module", [ANYONES, "tfdrl.topology"])
def test_standard_library_only(module):
    for name in imports_of(MODULES[module]):
        is_ours = name.startswith("tfdrl.errors")  # which is standard library only, too
        assert is_ours or name.split(".")[0] in sys.stdlib_module_names, f"{module}: {name}"


def third_parties(packages):
    for module, path in MODULES.items():
        if package_of(module) in packages:
            for name in imports_of(path):
                yield module, name.split(".")[0]


def test_what_serves_actors_without_tensorflow_never_names_it():
    heavy = {"tensorflow", "tf_agents", "reverb", "tensorflow_probability", "tree"}
    light = {p for p, rank in RANKS.items() if rank == 0} | {"tfdrl.environments", "tfdrl.rpc"}
    named = [(m, n) for m, n in third_parties(light) if n in heavy]
    assert not named


def test_ops_are_pure():
    """No gin, flags, variables or logs in the mathematics."""
    named = {name for _, name in third_parties({"tfdrl.ops"})}
    assert named <= {"__future__", "typing", "numpy", "tensorflow", "tfdrl"}
    for module, path in MODULES.items():
        if module.startswith("tfdrl.ops."):
            text = path.read_text()
            assert "tf.Variable" not in text and "print(" not in text, module


def test_gin_files_do_not_hide_the_gin_library():
    assert (_ROOT / "gin").is_dir()
    assert not list((_ROOT / "gin").rglob("*.py"))


def test_no_utils():
    assert not [
        m for m in MODULES if m.rpartition(".")[2] in ("utils", "util", "helpers", "common")
    ]
