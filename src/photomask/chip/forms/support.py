"""The table of the documentation that says which form can write which operator."""

from photomask.chip.forms.catalogue import FORMS
from photomask.chip.operators import OPERATORS


def support_matrix() -> str:
    """Returns a Markdown table of all operators and forms; its footnotes are the reasons.

    A cell is `yes`, or `no` with the number of the footnote that says why the form refuses the
    operator.
    """
    names = [form.name for form in FORMS]
    lines = [_row(["operator", *names]), _row(["---", *(":-:" for _ in names)])]
    notes: list[str] = []
    for operator in OPERATORS:
        kind, cells = operator.model_fields["kind"].default, []
        for form in FORMS:
            reason = form.refusal(operator)
            note = None if reason is None else f"{form.name}: {reason}"
            if note is not None and note not in notes:
                notes.append(note)
            cells.append("yes" if note is None else f"no [{notes.index(note) + 1}]")
        lines.append(_row([f"`{kind}`", *cells]))
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
