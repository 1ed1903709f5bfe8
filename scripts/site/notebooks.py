"""Hook of mkdocs: takes out of pages of notebooks what could load something from the network.

The plug-in adds a script that fetches Mermaid from a content delivery network where a notebook has
a diagram of it. Ours have none.
"""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

MERMAID = re.compile(
    r"<script[^>]*>(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>", re.DOTALL
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Returns the page without the script."""
    return MERMAID.sub("", output) if page.file.src_uri.endswith(".ipynb") else output
