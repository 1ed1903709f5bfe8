"""Writes the table of forms and operators into docs/reference/forms.md.

Run from the repository root: python scripts/support_matrix.py
"""

from pathlib import Path

from photomask.chip.forms import support_matrix

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "forms.md"
BEGIN, END = "<!-- support -->\n", "<!-- /support -->\n"


def main() -> None:
    """Replaces what stands between the two comments."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + support_matrix() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
