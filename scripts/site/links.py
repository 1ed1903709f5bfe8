"""Hook of mkdocs: publishes the pages of the repository's root, and mends links that leave docs/.

In docs/, a link such as `../../examples/bert.py` works on the forge and in an editor. On the site,
it becomes the file's address in the repository. A link to a page of the root that is published,
such as `../../CONTRIBUTING.md`, becomes a link to that page of the site.
"""

import os
import re
from pathlib import Path

from addresses import ROOT, address_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PUBLISHED = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages of the repository's root that the site shows too."""
DOCS = ROOT / "docs"
FENCED = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages of the root."""
    for name in PUBLISHED:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns a page whose links stay inside the site or are addresses."""
    source = page.file.src_uri
    folder = ROOT if source in PUBLISHED else (DOCS / source).parent
    parts = FENCED.split(markdown)
    parts[::2] = [
        LINK.sub(lambda found: found[1] + _on_site(found[2], folder, source), part)
        for part in parts[::2]
    ]
    return "".join(parts)


def _on_site(link: str, folder: Path, source: str) -> str:
    """Returns where a link of a page leads on the site."""
    path = Path(os.path.normpath(folder / link))
    if path.is_relative_to(DOCS):
        place = path.relative_to(DOCS)
    elif path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix() in PUBLISHED:
        place = path.relative_to(ROOT)
    elif path.is_relative_to(ROOT) and path.exists():
        return address_of(path)
    else:
        return link  # mkdocs reports it
    return Path(os.path.relpath(place, Path(source).parent)).as_posix()
