"""What `verify` found, as a document and as a page."""

from collections.abc import Callable
from typing import Literal

from photomask.chip.cost.estimates import HardwareReport
from photomask.chip.recipe.documents import RecipeDocument
from photomask.chip.target import Target
from photomask.chip.verification.documents import (
    EngineReport,
    LayerReport,
    MultiplierStudy,
    OutputReport,
    SampleReport,
    Thresholds,
    TotalsReport,
)
from photomask.chip.verification.layer_sections import (
    channel_section,
    sample_section,
    sensitivity_section,
    value_section,
)
from photomask.chip.verification.layer_sensitivity import LayerSensitivities
from photomask.chip.verification.origin import DataRecord, origin_section
from photomask.chip.verification.presentation import (
    facts_of,
    layer_section,
    multiplier_section,
    output_section,
    with_pictures,
)
from photomask.chip.verification.sparsity import LayerSparsity, sparsity_section
from photomask.chip.verification.step_documents import EdgeFacts, MemoryReport, StepReport
from photomask.chip.verification.step_section import memory_section, step_section
from photomask.documents import Document
from photomask.report import Check, Page, RunRecord, Section, Shown, check_section


class Report(Shown, Document):
    """The result of `verify`; `print` shows it as tables, `write_html` as a page.

    Fields with a default are missing in reports of version 0.1, which are still read.
    """

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
    sparsity: tuple[LayerSparsity, ...] = ()
    """The zeros of each weight, counted on the program's integers."""
    totals: TotalsReport
    multipliers: MultiplierStudy | None
    inputs: tuple[EdgeFacts, ...] = ()
    """The program's inputs: formats and addresses."""
    steps: tuple[StepReport, ...] = ()
    """Every step of the program, in the order of computation."""
    memory: MemoryReport | None = None
    worst_samples: tuple[SampleReport, ...] = ()
    """The samples on which program and model differ most, worst first."""
    sensitivity: LayerSensitivities | None = None
    """What the quantization of each layer costs; None where it was not asked for."""
    hardware: HardwareReport | None = None
    """What the program costs on an accelerator; None where none was named."""
    run: RunRecord | None = None
    """When, where and with which versions the report was made."""
    data: tuple[DataRecord, ...] = ()
    """What was verified on."""
    recipe: RecipeDocument | None = None
    """With what the program was made; None where the prepared model was not at hand, or where the
    recipe has quantizers of the user's own. `provenance` has it as text."""

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
        sections = with_pictures(self._sections(), figures or {})
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

    def _sections(self) -> list[Section]:
        """Returns the tables, the most asked for first."""
        sections = [check_section(self.checks), output_section(self.outputs, self.samples)]
        if self.worst_samples:
            sections.append(sample_section(self.worst_samples, self.outputs[0].name))
        if self.sensitivity is not None:
            sections.append(sensitivity_section(self.sensitivity))
        sections += [
            layer_section(self.layers, self.layer_samples, self.target.accumulator_bits),
            value_section(self.layers, self.layer_samples),
            channel_section(self.layers, self.layer_samples),
        ]
        if self.sparsity:
            sections.append(sparsity_section(self.sparsity))
        if self.steps:
            sections.append(step_section(self.steps))
        if self.memory is not None:
            sections.append(memory_section(self.memory))
        if self.multipliers is not None:
            sections.append(multiplier_section(self.multipliers))
        return sections

    def origin(self) -> Section | None:
        """Returns what is needed to make the report again, the last section of its page."""
        if self.run is None:
            return None
        return origin_section(
            self.program_sha256, self.provenance, self.target, self.run, self.data, self.recipe
        )
