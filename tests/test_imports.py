"""Imports run one way: no cycle among the modules, those for type checkers and inside functions included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("training", "indexer", "service")


def modules() -> dict[str, Path]:
    found = {}
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the product that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known.keys()
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            found |= inner if len(inner) == len(node.names) else {*inner, node.module}
    return found


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return None


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    assert len(known) > 200
    assert cycle({name: imports(path, known) - {name} for name, path in known.items()}) is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from training.models import MODELS", {"training.models"}),
        ("def f():\n    from training import encoder, errors", {"training.encoder", "training.errors"}),
        ("if TYPE_CHECKING:\n    import indexer.search.view", {"indexer.search.view"}),
        ("import torch", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert imports(tmp_path / "module.py", modules()) == expected


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
