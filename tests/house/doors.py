"""What CONTRIBUTING says about each extension of the package, and a dummy of each."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.house.sources import ROOT

DUMMIES = Path(__file__).parent / "dummies"


@dataclass(frozen=True)
class Door:
    """A dummy of one kind of extension, as changes of files below `src/photomask`.

    Attributes:
        heading: of its section in CONTRIBUTING.
        new: files, by path, and which dummy they hold.
        appended: which dummy is written behind the end of a file.
        inserted: lines that are put behind the line of a file that is named with them.
        replaced: words of a file that become others.
    """

    heading: str
    new: dict[str, str] = field(default_factory=dict)
    appended: dict[str, str] = field(default_factory=dict)
    inserted: dict[str, dict[str, str]] = field(default_factory=dict)
    replaced: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def touched(self) -> set[str]:
        """Returns the paths of all files that it changes."""
        return {*self.new, *self.appended, *self.inserted, *self.replaced}

    def open(self, package: Path) -> None:
        """Adds the dummy to a copy of the package."""
        for path, dummy in self.new.items():
            place = package / path
            assert not place.exists(), f"{path} is there already"
            place.parent.mkdir(exist_ok=True)
            place.write_text(_dummy(dummy), encoding="utf-8")
        for path, dummy in self.appended.items():
            place = package / path
            place.write_text(place.read_text("utf-8") + "\n\n" + _dummy(dummy), encoding="utf-8")
        for path, lines in self.inserted.items():
            for before, added in lines.items():
                _replace(package / path, f"{before}\n", f"{before}\n{added}\n")
        for path, words in self.replaced.items():
            for before, after in words.items():
                _replace(package / path, before, after)


def named_files(heading: str) -> set[str]:
    """Returns the paths below `src/photomask` that a section of CONTRIBUTING names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section is not None, f"CONTRIBUTING has no section {heading!r}"
    return set(re.findall(r"`src/photomask/([^`]+\.py)`", section[1]))


def pattern_of(path: str) -> re.Pattern[str]:
    """Returns what a path with `<words>` stands for."""
    return re.compile("[a-z0-9][a-z0-9_]*".join(map(re.escape, re.split(r"<[a-z]+>", path))))


def _dummy(name: str) -> str:
    return (DUMMIES / f"{name}.txt").read_text(encoding="utf-8")


def _replace(place: Path, before: str, after: str) -> None:
    text = place.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{place}: {before!r} is there {text.count(before)} times"
    place.write_text(text.replace(before, after), encoding="utf-8")


WRITERS = ("c", "onnx", "qdq", "qonnx", "deeploy", "rtl")
"""The forms that have a function or a reason for each operator."""

DOORS = (
    Door(
        "Adding an integer operator",
        new={"chip/operators/mirror.py": "operator"},
        appended={
            "chip/graph/operations/elementwise.py": "float_operation",
            "chip/graph/lowerings/elementwise.py": "lowering",
            "chip/conversion/converters.py": "converter",
            **{f"chip/forms/{form}/elementwise.py": f"writer_{form}" for form in WRITERS},
        },
        inserted={
            "chip/operators/__init__.py": {
                "from photomask.chip.operators.matmul import Matmul": (
                    "from photomask.chip.operators.mirror import Mirror"
                ),
                "    | MaxPool": "    | Mirror",
                '    "MaxPool",': '    "Mirror",',
            },
            "chip/graph/operations/__init__.py": {
                "    Clamp,": "    Mirror,",
                '    "Mean",': '    "Mirror",',
            },
        },
    ),
    Door(
        "Capturing another ATen operator",
        inserted={
            "chip/graph/lowerings/pointwise.py": {
                '    "absolute": (torch.abs, ()),': '    "asinh": (torch.asinh, ()),'
            }
        },
    ),
    Door(
        "Adding a quantizer",
        new={"chip/quantizers/plain.py": "quantizer"},
        inserted={
            "chip/quantizers/__init__.py": {
                "from photomask.chip.quantizers.pact import PACT": (
                    "from photomask.chip.quantizers.plain import Plain"
                ),
                '    "PerTensor",': '    "Plain",',
            },
            "chip/recipe/documents.py": {
                "    PerTensor,": "    Plain,",
                '    "ternary": Ternary,': '    "plain": Plain,',
                '    "pact": PACT,': '    "plain": Plain,',
            },
        },
    ),
    Door(
        "Adding an observer",
        new={"chip/observers/half_range.py": "observer"},
        inserted={
            "chip/observers/__init__.py": {
                "from photomask.chip.observers.grid import Grid": (
                    "from photomask.chip.observers.half_range import HalfRange"
                ),
                '    "Grid",': '    "HalfRange",',
            },
        },
        replaced={
            "chip/recipe/documents.py": {
                "import KL, MSE, MinMax": "import KL, MSE, HalfRange, MinMax",
                '"kl": KL}': '"kl": KL, "half_range": HalfRange}',
            },
        },
    ),
    Door(
        "Adding a form",
        new={
            "chip/forms/listing/__init__.py": "form_package",
            "chip/forms/listing/context.py": "form_context",
            "chip/forms/listing/elementwise.py": "form_elementwise",
            "chip/forms/listing/export.py": "form_export",
        },
        inserted={
            "chip/forms/__init__.py": {
                "from photomask.chip.forms.form import Form, FormCheck, Sample": (
                    "from photomask.chip.forms.listing import ListingForm"
                ),
                '    "FormCheck",': '    "ListingForm",',
            },
            "chip/forms/catalogue.py": {
                "from photomask.chip.forms.form import Form, require_form": (
                    "from photomask.chip.forms.listing import ListingForm"
                ),
                "    RtlForm(),": "    ListingForm(),",
            },
        },
    ),
    Door(
        "Adding an engine",
        new={"chip/engines/patient_engine.py": "engine"},
        inserted={
            "chip/engines/__init__.py": {
                "from photomask.chip.engines.onnx_engine import OnnxEngine": (
                    "from photomask.chip.engines.patient_engine import PatientEngine"
                ),
            },
            "chip/__init__.py": {'    "OnnxEngine",': '    "PatientEngine",'},
        },
        replaced={
            "chip/engines/__init__.py": {
                '"OnnxEngine", "TorchEngine"': '"OnnxEngine", "PatientEngine", "TorchEngine"'
            },
            "chip/__init__.py": {
                "OnnxEngine, TorchEngine\n": "OnnxEngine, PatientEngine, TorchEngine\n"
            },
        },
    ),
    Door(
        "Adding a target preset",
        inserted={
            "chip/target.py": {
                "_PRESETS = (": (
                    '    ("Four bits alone.", Target(name="narrow", weight_bits=(4,))),'
                )
            }
        },
    ),
    Door(
        "Adding a model family",
        inserted={
            "attention/families/table.py": {
                "FAMILIES = (": (
                    '    Family("Dummy", ("dummy_vl",), Delimiters.NEIGHBOURS, _unknown_lengths),'
                )
            }
        },
    ),
    Door(
        "Adding an attention pattern",
        inserted={
            "attention/intervals.py": {
                "            Pattern.INTRA_IMAGE: (torch.where(sees_start, delimiter, own_image), "
                "stop),": "            Pattern.OWN_IMAGE: (own_image, stop),",
                "            Pattern.INTRA_IMAGE: (*text, *none),": (
                    "            Pattern.OWN_IMAGE: (*text, *none),"
                ),
            },
            "attention/triton_tables.py": {
                "_DENSE = tl.constexpr(int(Pattern.DENSE))": (
                    "_OWN_IMAGE = tl.constexpr(int(Pattern.OWN_IMAGE))"
                ),
                "    p_lows, p_entries = p_table + tile * TILE_ROWS + b_slot, p_tiles + tile * 8": (
                    "    _write_pattern(\n"
                    "        p_lows, p_entries, _OWN_IMAGE, tiles, b_slot, b_sees, b_reach,\n"
                    "        image, b_stop, text_from, text_to, none, none,\n"
                    "    )  # fmt: skip"
                ),
            },
            "attention/measuring.py": {
                "        Pattern.SINK: (always.join(sinks), rest.join(others)),": (
                    "        Pattern.OWN_IMAGE: (\n"
                    "            text.join(diagonal).join(rest), start.join(sinks).join(others)\n"
                    "        ),"
                )
            },
            "attention/verification/pictures.py": {
                "    Pattern.SINK: 0.13,": "    Pattern.OWN_IMAGE: 0.22,"
            },
        },
        replaced={
            "attention/patterns.py": {
                '    INTRA_IMAGE = 1, "intra-image", "i"': (
                    '    OWN_IMAGE = 1, "own-image", "o"\n    INTRA_IMAGE = 2, "intra-image", "i"'
                ),
                "    INTRA_IMAGE_SINK = 2,": "    INTRA_IMAGE_SINK = 3,",
                "    DENSE = 3,": "    DENSE = 4,",
                "        case Pattern.INTRA_IMAGE_SINK:": (
                    "        case Pattern.OWN_IMAGE:\n"
                    "            sees_sinks = False\n"
                    "        case Pattern.INTRA_IMAGE_SINK:"
                ),
            },
        },
    ),
)
