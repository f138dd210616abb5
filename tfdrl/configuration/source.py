"""Source files of modules, found and parsed without importing any of them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import pathlib
from collections.abc import Iterator

from tfdrl.configuration.statements import did_you_mean

_TFDRL_DIR = pathlib.Path(__file__).resolve().parents[1]

#: Top-level packages that load TensorFlow when imported.
TENSORFLOW_PACKAGES = frozenset(
    ("tensorflow", "tf_agents", "reverb", "tensorflow_probability", "keras", "tf_keras", "sonnet")
)

#: Packages whose modules are followed in `loads_tensorflow` besides the module's own.
_FOLLOWED = "tfdrl"


def package_roots(top: str) -> tuple[list[pathlib.Path], bool]:
    """Files or directories of the top-level package `top`, and whether sys.path finds it.

    A package that only the working directory holds is found too (console scripts do not
    have the working directory on sys.path); then the second value is False.
    """
    if top == "tfdrl":
        return [_TFDRL_DIR], True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None:
        if spec.submodule_search_locations is not None:
            return [pathlib.Path(path) for path in spec.submodule_search_locations], True
        return [pathlib.Path(spec.origin)] if spec.has_location else [], True
    here = pathlib.Path(os.getcwd())
    for path in (here / top, here / f"{top}.py"):
        if path.exists():
            return [path], False
    return [], False


def module_file(module: str) -> pathlib.Path | None:
    """The source file of a module, or None (no such module, or not written in Python)."""
    top, *rest = module.split(".")
    for root in package_roots(top)[0]:
        if root.suffix == ".py":
            if not rest:
                return root
            continue
        path = root.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_name(path.name + ".py")):
            if candidate.is_file():
                return candidate
    return None


def module_exists(module: str) -> bool:
    """Whether `module` could be imported, as far as the file system tells."""
    top, *rest = module.split(".")
    roots, on_path = package_roots(top)
    if not roots:
        return on_path and not rest  # a built-in module
    if not rest or module_file(module):
        return True
    return any(
        root.joinpath(*rest).is_dir() or list(root.joinpath(*rest[:-1]).glob(f"{rest[-1]}.*so"))
        for root in roots
    )


def package_modules(top: str) -> Iterator[tuple[str, pathlib.Path]]:
    """(module name, file) of everything in the top-level package `top`."""
    for root in package_roots(top)[0]:
        if root.suffix == ".py":
            yield top, root
            continue
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if all(part.isidentifier() for part in parts):
                yield ".".join((top, *parts)), path


def hint_of(module: str) -> str:
    """Words after "there is no module": the nearest of its package, or that there is none."""
    top = module.split(".")[0]
    if not package_roots(top)[0]:
        return f" (no package {top} in the working directory or on sys.path)"
    return did_you_mean(module, [name for name, _ in package_modules(top)])


@functools.cache
def _parsed(path: pathlib.Path, _modified_ns: int) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, UnicodeDecodeError):
        return None  # whoever imports it reports it, with the proper traceback


def parse(path: pathlib.Path) -> ast.Module | None:
    """The syntax tree of a file; None if Python could not read it either."""
    return _parsed(path, path.stat().st_mtime_ns)


def loads_tensorflow(module: str) -> str | None:
    """Why importing `module` would load TensorFlow: "file:line imports x"; None if it does not.

    Follows imports at module level through the module's own package and tfdrl; imports
    inside functions do not count, because importing the module does not run them.
    """
    if module.split(".")[0] in TENSORFLOW_PACKAGES:
        return f"{module} belongs to a package built on TensorFlow"
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # parent packages are imported first
        path = module_file(name)
        tree = parse(path) if path else None
        if tree is None:
            continue
        for imported, line in _module_imports(tree, name, path.name == "__init__.py"):
            top = imported.split(".")[0]
            if top in TENSORFLOW_PACKAGES:
                return f"{path}:{line} imports {imported}"
            if top in (_FOLLOWED, module.split(".")[0]) and module_file(imported):
                waiting.append(imported)
    return None


def _module_imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Names that a module imports when it is imported, with lines; `from` names both levels."""
    for node in _outside_functions(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            yield base, node.lineno
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def imported_names(tree: ast.Module, module: str, is_package: bool) -> dict[str, str]:
    """Complete names of what a module imports at its top, by the names that it uses for them."""
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            for alias in node.names:
                names[alias.asname or alias.name] = f"{base}.{alias.name}"
    return names


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module that `from ... import` means in `module`."""
    base = node.module or ""
    if not node.level:
        return base
    package = module.split(".") if is_package else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, base] if base else package)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _outside_functions(child)
