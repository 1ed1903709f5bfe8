"""Prints constraints that pin every direct dependency to the oldest version pyproject.toml allows.

    python scripts/oldest_versions.py > oldest.txt
    make test CONSTRAINTS=oldest.txt

Tools that check or benchmark the package are left as they are, because no user meets them.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
TOOLS = ("bench", "check", "docs", "test")
"""Extras of developers, whose oldest versions nobody needs."""


def oldest_versions(pyproject: dict) -> list[str]:
    """Returns `name==version` for every requirement of users that states a lower bound."""
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    requirements = list(project["dependencies"])
    for extra, wanted in extras.items():
        if extra not in TOOLS:
            requirements += wanted
    pattern = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)$")
    found = (pattern.match(requirement.replace(" ", "")) for requirement in requirements)
    return sorted({f"{match[1]}=={match[2]}" for match in found if match}, key=str.lower)


def main() -> None:
    """Prints one constraint a line."""
    print("\n".join(oldest_versions(tomllib.loads(PYPROJECT.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
