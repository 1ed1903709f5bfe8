"""What `verify` found, as a document and as a page."""

from collections.abc import Callable
from typing import Literal

from photomask.chip.target import Target
from photomask.chip.verification.documents import (
    EngineReport,
    LayerReport,
    MultiplierStudy,
    OutputReport,
    Thresholds,
    TotalsReport,
)
from photomask.chip.verification.presentation import (
    facts_of,
    layer_section,
    multiplier_section,
    output_section,
    with_pictures,
)
from photomask.documents import Document
from photomask.report import Check, Page, Shown, check_section


class Report(Shown, Document):
    """The result of `verify`; `print` shows it as tables, `write_html` as a page."""

    schema_version: Literal[1] = 1
    photomask_version: str
    program_sha256: str
    provenance: dict[str, str]
    target: Target
    samples: int
    labelled: bool
    layer_samples: int
    thresholds: Thresholds
    checks: tuple[Check, ...]
    outputs: tuple[OutputReport, ...]
    engine: EngineReport
    layers: tuple[LayerReport, ...]
    totals: TotalsReport
    multipliers: MultiplierStudy | None

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The checks that do not hold, in words."""
        return tuple(str(check) for check in self.checks if not check.passed)

    def shown(self) -> Page:
        """Returns the page without pictures."""
        return self.page()

    def page(self, figures: dict[str, Callable[[], str]] | None = None) -> Page:
        """Puts the report into words and tables.

        Args:
            figures: what draws each picture, by the names that `pictures.figures_of` gives.
        """
        sections = [
            check_section(self.checks),
            output_section(self.outputs, self.samples),
            layer_section(self.layers, self.layer_samples, self.target.accumulator_bits),
        ]
        if self.multipliers is not None:
            sections.append(multiplier_section(self.multipliers))
        if figures:
            sections = with_pictures(sections, figures)
        met = sum(check.passed for check in self.checks)
        word = "PASSED" if self.passed else "FAILED"
        recipe = self.provenance.get("recipe", "").partition("\n")[0]
        return Page(
            title=f"Integer program for target “{self.target.name}”",
            verdict=f"{word}: {met} of {len(self.checks)} checks hold on {self.samples:,} samples",
            passed=self.passed,
            reasons=self.reasons,
            facts=facts_of(self.outputs[0], self.totals, self.engine),
            sections=sections,
            footer=(
                f"program {self.program_sha256[:16]} · {recipe} · "
                f"Photomask {self.photomask_version}"
            ),
        )
