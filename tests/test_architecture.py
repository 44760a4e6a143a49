"""The layers of the library: a file imports from below or from its own folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    ("types", "checks", "seeding", "distributed", "memory", "readable", "serving"),
    ("functional",),
    ("data",),
    ("backbones", "metrics"),
    ("objectives",),
    ("modules",),
    (
        *(
            "plan",
            "hooks",
            "record",
            "checkpoint",
            "stage_callbacks",
            "lean",
            "unfinished",
            "resume",
            "export",
            "trainer",
        ),
        *("processes", "signals", "_contract", "testing"),
    ),
    ("reporting",),
    ("callbacks",),
    ("studies",),
    ("command_names", "config_files", "mistakes"),
    ("sweeps",),
    ("commands",),
    ("cli",),
)
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    """Dotted name -> file, for the library and its callbacks."""
    found = {}
    for folder, prefix in (("ccd_lightning", "ccd_lightning"), ("callbacks", "ccd_lightning.callbacks")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([prefix, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules of the library that a file imports when it runs; those for type checking alone are left out."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ccd_lightning"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if (node.module or "").startswith("ccd_lightning"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in MODULES else str(node.module)


def top_name(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_from_lower_layers_or_its_own_folder(module):
    own = top_name(module)
    if not own:
        return
    assert own in LAYER_OF, f"{module} has no layer: add `{own}` to LAYERS"
    for imported in imports(MODULES[module]):
        other = top_name(imported)
        # Files that stand beside each other count as one folder; that they form no cycle is another test.
        beside = LAYER_OF[other] == LAYER_OF[own] and (ROOT / "ccd_lightning" / f"{own}.py").exists()
        assert own == other or beside or LAYER_OF[other] < LAYER_OF[own], f"{module} imports {imported}"


def test_modules_import_without_cycles():
    graph = {name: {imported for imported in imports(path) if imported != name} for name, path in MODULES.items()}
    # A package's own files are imported by its __init__, and reach each other by their full names.
    list(TopologicalSorter(graph).static_order())


def documented(tree: ast.Module, is_private: bool) -> Iterator[tuple[str, ast.AST]]:
    """Public classes, functions and methods; overrides inherit their docstring."""
    yield "the module", tree
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_") or is_private:
            continue
        yield node.name, node
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            overrides = isinstance(inner, ast.FunctionDef) and any(
                "over" in ast.unparse(d) for d in inner.decorator_list
            )
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not overrides:
                yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("module", sorted(MODULES))
def test_everything_public_has_a_docstring(module):
    tree = ast.parse(MODULES[module].read_text())
    is_private = module.rsplit(".", 1)[-1].startswith("_")
    missing = [name for name, node in documented(tree, is_private) if not ast.get_docstring(node)]
    assert not missing, f"{module}: {missing} without a docstring"


def test_files_and_functions_are_short():
    for name, path in MODULES.items():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, f"{name} has more than 300 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                length = (node.end_lineno or 0) - first.lineno + 1
                assert length <= 45, f"{name}.{node.name} has {length} lines"
