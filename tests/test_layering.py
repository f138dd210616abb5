"""Imports in tfdrl/ point down: each package may use only those of a lower rank."""

import ast
import collections
import pathlib
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "tfdrl"

#: The longest prefix of a module's name decides. A room imports rooms below it, and itself.
RANKS = {
    "tfdrl": 0,  # the package's own __init__
    "tfdrl.types": 0,
    "tfdrl.errors": 0,
    "tfdrl.topology": 0,
    "tfdrl.contracts": 0,
    "tfdrl.configuration": 0,
    "tfdrl.experiment": 0,
    "tfdrl.ops": 1,
    "tfdrl.environments": 1,
    "tfdrl.rpc": 1,
    "tfdrl.environments_tf": 2,
    "tfdrl.networks": 2,
    "tfdrl.agents": 3,
    "tfdrl.runtime": 4,
    "tfdrl.experience": 5,
    "tfdrl.acting": 6,
    "tfdrl.replay": 6,
    "tfdrl.inference": 7,
    "tfdrl.evaluation": 7,
    "tfdrl.learning": 8,
    "tfdrl.parameter_server": 9,
    "tfdrl.architectures": 10,
    "tfdrl.launch": 11,
    "tfdrl.planning": 11,  # simulates what the architectures' settings say
    "tfdrl.benchmarks": 12,  # measures whole runs
    "tfdrl.reports": 12,  # reads and draws whole runs
    "tfdrl.tracking": 13,  # sends whole runs to trackers
    "tfdrl.studies": 13,  # trains whole runs, and reports on them
    "tfdrl.api": 13,  # the same, for Python programs
}
#: What an architecture's page may import before a role runs.
RANK_ZERO = tuple(f"tfdrl.{m}" for m in ["types", "errors", "topology", "contracts", "experiment"])
SHARED_SETTINGS = "tfdrl.architectures.settings"
LIGHT = ("gin", "__future__", "dataclasses", "collections", "typing", "math", "enum", "pathlib")
#: Standard library only: the launcher holds a lock, and draws a program, without anything else.
STANDARD_LIBRARY_ONLY = ("tfdrl.runtime.locks", "tfdrl.topology")
#: Rooms that never name TensorFlow, and the only ones that name Reverb.
WITHOUT_TENSORFLOW = (
    "tfdrl.environments.",
    "tfdrl.rpc.",
    "tfdrl.launch.cluster.",
    "tfdrl.reports.",
    "tfdrl.planning.",
    "tfdrl.tracking.",
)
WITH_REVERB = ("tfdrl.replay.", "tfdrl.benchmarks.")  # these compare with the bare library


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
        are_data = RANKS[theirs] == RANKS[mine] == 0
        is_allowed = theirs == mine or RANKS[theirs] < RANKS[mine] or are_data
        assert is_allowed, f"{module} (rank {RANKS[mine]}) imports {other} (rank {RANKS[theirs]})"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tfdrl.architectures.")])
def test_architectures_import_only_rank_zero_at_their_top(module):
    names = set(imports_of(MODULES[module], at_top_only=True))
    for name in names:
        is_allowed = name.split(".")[0] in LIGHT or name.startswith((*RANK_ZERO, SHARED_SETTINGS))
        assert is_allowed, f"{module} imports {name} at its top"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_standard_library_only(module):
    for name in imports_of(MODULES[module]):
        is_ours = name.startswith("tfdrl.errors")  # which is standard library only, too
        assert is_ours or name.split(".")[0] in sys.stdlib_module_names, f"{module}: {name}"


def test_what_serves_actors_without_tensorflow_never_names_it():
    heavy = {"tensorflow", "tf_agents", "reverb", "tensorflow_probability", "tree"}
    light = {p for p, rank in RANKS.items() if rank == 0}
    for module, path in MODULES.items():
        if package_of(module) in light or module.startswith(WITHOUT_TENSORFLOW):
            named = {name.split(".")[0] for name in imports_of(path)}
            assert not named & heavy, module


def test_only_the_replay_names_reverb():
    named = {m for m, path in MODULES.items() if "reverb" in map(_head, imports_of(path))}
    assert any(m.startswith("tfdrl.replay.") for m in named)
    assert not [m for m in named if not m.startswith(WITH_REVERB)]


def _head(name):
    return name.split(".")[0]


def test_no_room_holds_too_much():
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    rooms = collections.Counter()
    for module, count in lines.items():
        rooms[".".join(module.split(".")[: 3 if module.startswith("tfdrl.launch.") else 2])] += (
            count
        )
    whole = sum(lines.values())
    assert not {room: n for room, n in rooms.items() if n > 0.12 * whole}


def test_ops_are_pure():
    """No gin, flags, variables or logs in the mathematics."""
    for module, path in MODULES.items():
        if module.startswith("tfdrl.ops."):
            named = set(map(_head, imports_of(path)))
            assert named <= {"__future__", "typing", "numpy", "tensorflow", "tfdrl"}
            text = path.read_text()
            assert "tf.Variable" not in text and "print(" not in text, module


def test_gin_files_do_not_hide_the_gin_library():
    assert (_ROOT / "gin").is_dir()
    assert not list((_ROOT / "gin").rglob("*.py"))


def test_no_utils():
    assert not [
        m for m in MODULES if m.rpartition(".")[2] in ("utils", "util", "helpers", "common")
    ]


def test_what_tests_share_is_in_support():
    for path in (_ROOT / "tests").rglob("*.py"):
        is_test = path.name.startswith("test_") or path.name == "conftest.py"
        assert is_test or path.parent.name in ("support", "my_package"), path
