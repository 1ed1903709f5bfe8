"""Hook of mkdocs: makes one page of reference for each public package, from its docstrings.

A name that several packages export is documented once, on the page of the package from which it is
imported with the shortest path; the other pages name it and link there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import griffe
from addresses import ROOT
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGES = {
    "photomask": "Errors and version",
    "photomask.chip": "From a float model to an integer program",
    "photomask.chip.quantizers": "Quantizers",
    "photomask.chip.observers": "Observers: how a range is chosen",
    "photomask.chip.recipe": "Recipes",
    "photomask.chip.program": "Integer programs",
    "photomask.chip.operators": "Integer operators",
    "photomask.chip.conversion": "Conversion",
    "photomask.chip.engines": "Engines",
    "photomask.chip.verification": "Verification",
    "photomask.chip.forms": "Forms",
    "photomask.chip.forms.memory": "Memory images",
    "photomask.chip.forms.c": "C",
    "photomask.chip.forms.onnx": "Integer ONNX",
    "photomask.chip.forms.qdq": "QDQ",
    "photomask.chip.forms.qonnx": "QONNX",
    "photomask.chip.forms.deeploy": "Deeploy",
    "photomask.chip.forms.rtl": "RTL",
    "photomask.chip.model_explorer": "Model Explorer",
    "photomask.chip.cost": "Accelerators and estimates",
    "photomask.chip.channel_pruning": "Channel pruning",
    "photomask.chip.training": "Quantization-aware training",
    "photomask.chip.pruning": "Pruning",
    "photomask.chip.pretraining": "Pre-training without labels",
    "photomask.chip.reconstruction": "Reconstruction",
    "photomask.chip.weight_rounding": "Weight rounding",
    "photomask.chip.equalization": "Equalization",
    "photomask.chip.accumulators": "Narrow accumulators",
    "photomask.chip.mixed_precision": "Mixed precision",
    "photomask.chip.exploration": "Exploration",
    "photomask.chip.microscaling": "Microscaling formats",
    "photomask.chip.decoding": "Decoding with a cache",
    "photomask.chip.onnx_import": "ONNX import",
    "photomask.chip.graph": "Float graphs",
    "photomask.attention": "Sparse prefill",
    "photomask.attention.families": "Model families",
    "photomask.attention.kernels": "Kernels",
    "photomask.attention.plugin": "The plug-in for transformers",
    "photomask.attention.verification": "Verification of head plans",
    "photomask.report": "Reports",
    "photomask.documents": "Documents",
    "photomask.zoo": "Models and data to try",
}
"""The packages that have a page, and what their pages are called."""

FOLDER = "reference/api"


@dataclass(frozen=True)
class Name:
    """A name that a package exports."""

    name: str
    kind: str
    summary: str
    home: str
    """The package on whose page the name is documented."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages."""
    loader = griffe.GriffeLoader(search_paths=[ROOT / "src"], docstring_parser="google")
    loader.load("photomask")
    loader.resolve_aliases(external=False)
    packages = {path: loader.modules_collection[path] for path in PACKAGES}
    homes = _homes(packages)
    for path, package in packages.items():
        names = list(_names(package, homes))
        files.append(
            File.generated(config, f"{FOLDER}/{path}.md", content=_page(path, package, names))
        )
    content = _index(packages)
    files.append(File.generated(config, f"{FOLDER}/index.md", content=content))


def _homes(packages: dict[str, griffe.Module]) -> dict[str, str]:
    """Returns, for each object's own path, the package with the shortest path that exports it."""
    homes: dict[str, str] = {}
    for path in sorted(packages, key=lambda path: path.count(".")):
        for name in packages[path].exports or []:
            homes.setdefault(packages[path][str(name)].canonical_path, path)
    return homes


def _names(package: griffe.Module, homes: dict[str, str]) -> Iterator[Name]:
    for name in sorted(map(str, package.exports or [])):
        found = package[name]
        kind = "class" if found.is_class else "function" if found.is_function else "constant"
        summary = found.docstring.value.partition("\n\n")[0] if found.docstring else ""
        yield Name(name, kind, " ".join(summary.split()), homes[found.canonical_path])


def _page(path: str, package: griffe.Module, names: list[Name]) -> str:
    """Returns the page of a package: what it is for, a table of its names, then each of them."""
    lines = [f"# {PACKAGES[path]}", "", f"`import {path}`", "", _text(package), ""]
    for kind, title in (("function", "Functions"), ("class", "Classes"), ("constant", "Constants")):
        if own := [name for name in names if name.kind == kind]:
            lines += [f"| {title} | |", "|---|---|"]
            lines += [f"| [`{n.name}`][{n.home}.{n.name}] | {_cell(n.summary)} |" for n in own]
            lines.append("")
    for kind in ("function", "class", "constant"):
        for name in names:
            if name.kind == kind and name.home == path:
                lines += [f"::: {path}.{name.name}", ""]
    return "\n".join(lines)


def _text(package: griffe.Module) -> str:
    """Returns a package's docstring as Markdown: `::` announces an indented block there."""
    return str(package.docstring.value).replace("::\n\n", ":\n\n") if package.docstring else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _index(packages: dict[str, griffe.Module]) -> str:
    """Returns the page that lists the packages."""
    lines = [
        "# Python API",
        "",
        "Every public name of every public package, from its docstring. A name that several "
        "packages export is documented where its import path is shortest.",
        "",
        "| package | what it holds | |",
        "|---|---|---|",
    ]
    for path, package in packages.items():
        summary = " ".join(_text(package).partition("\n\n")[0].split())
        cells = (f"[`{path}`]({path}.md)", PACKAGES[path], _cell(summary))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
