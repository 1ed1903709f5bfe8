"""Which module of the source imports which, read from the text, and the circles among them."""

import ast
from collections.abc import Mapping
from pathlib import Path


def modules_of(source: Path) -> dict[str, Path]:
    """Returns every module below a folder by its dotted name."""
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(source: Path) -> dict[str, set[str]]:
    """Returns module → the modules that it imports, of those below the folder.

    Counted is every import statement: at the top, under `TYPE_CHECKING` and inside functions. That
    importing a module first runs the packages that it lies in is not.
    """
    modules = modules_of(source)
    return {name: imports_of(path, set(modules)) - {name} for name, path in modules.items()}


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Returns the modules that one file imports, wherever in it the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names
            if names - modules:
                found.add(node.module)
    return found & modules


def circles_of(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Returns the strongly connected components of more than one module.

    Source: Kosaraju's algorithm, as in Sharir 1981, Computers & Mathematics with Applications 7.
    """
    finished: list[str] = []
    seen: set[str] = set()
    for start in graph:
        finished += _reached(graph, start, seen)
    backwards: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            backwards[target].add(name)
    seen = set()
    components = [set(_reached(backwards, name, seen)) for name in reversed(finished)]
    return [component for component in components if len(component) > 1]


def _reached(graph: Mapping[str, set[str]], start: str, seen: set[str]) -> list[str]:
    """Returns what is reached from a module and was not seen before, the farthest first."""
    if start in seen:
        return []
    seen.add(start)
    order: list[str] = []
    path = [(start, iter(sorted(graph[start])))]
    while path:
        name, targets = path[-1]
        following = next((target for target in targets if target not in seen), None)
        if following is None:
            order.append(name)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(sorted(graph[following]))))
    return order
