"""Hook of mkdocs: takes the addresses of the site and of the repository from pyproject.toml."""

import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parents[2]
URLS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["urls"]


def address_of(path: Path) -> str:
    """Returns the address of a file or folder of the repository on its forge."""
    kind = "tree" if path.is_dir() else "blob"
    return f"{URLS['Repository']}/{kind}/main/{path.relative_to(ROOT).as_posix()}"


def on_config(config: MkDocsConfig) -> None:
    """Sets the addresses before anything is built."""
    config.site_url = URLS["Documentation"]
    config.repo_url = URLS["Repository"]
    config.repo_name = "Repository"
