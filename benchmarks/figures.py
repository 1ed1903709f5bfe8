"""Writes the measured figures into docs/benchmarks.md, and the headline among them into README.md.

Both are made from the rows alone; of each subject and metric the newest row counts. They stand
between two markers, and without the markers nothing is written.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import attention_tables as attention
import chip_tables as chip
import headline
import pretraining_table
import transformer_table
from rows import FOLDER, is_ours, is_outdated, read_current
from table_cells import Row, Table, markdown

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
START, END = "<!-- figures -->", "<!-- /figures -->"
QWEN, GEMMA = "Qwen2.5-VL-7B", "Gemma-3-12B"
"""Models whose layers `prefill_attention.py` measures."""


@dataclass(frozen=True)
class Section:
    """A table of the page.

    Attributes:
        title: its heading.
        script: that measured its rows, without `.py`.
        build: makes the table from the rows.
        caption: says what is compared, for a reader who meets the table first.
        picture: drawn from the same rows, relative to the page.
        beside: rows of other scripts that the table also shows.
    """

    title: str
    script: str
    build: Callable[[Sequence[Row]], Table]
    caption: str
    picture: str = ""
    beside: tuple[str, ...] = ()


CHIP = (
    Section(
        "Fashion-MNIST accuracy",
        "accuracy",
        chip.accuracy,
        "Each tool quantizes the same float network with the same calibration images. The figure "
        "is the share of test images that the integer network classifies correctly.",
    ),
    Section(
        "Few bits: calibrated, reconstructed and trained",
        "quantizers",
        chip.few_bits,
        "W4A8 means 4-bit weights and 8-bit activations. Calibration takes seconds, reconstruction "
        "minutes without labels, and training uses the training set.",
    ),
    Section(
        "Pruned networks",
        "pruning",
        chip.pruning,
        "Weights are pruned and the rest becomes integers. Top-1 is that of the integer program, "
        "and zeros are counted on its integers. What is trained has 3 seeds (the vision "
        "transformer 2), and all of it starts from the same float network.",
    ),
    Section(
        "Sums that provably fit",
        "accumulators",
        chip.accumulators,
        "Weights and layer inputs have 4 bits, and the program proves for every input that its "
        "accumulators suffice. Brevitas bounds the products of layers, and neither biases nor the "
        "sums between layers, so it has no proven width.",
    ),
    Section(
        "Half of the channels",
        "channel_pruning",
        chip.channels,
        "Half of the output channels of each layer are removed from the float network. What is "
        "left is trained with weights and activations of 8 bits, for everyone in the same way.",
    ),
    Section(
        "Few labels: pre-trained without labels, and from scratch",
        "pretraining",
        pretraining_table.build,
        "The encoder learns from 60,000 images of Fashion-MNIST without their labels. Then the "
        "network is fine-tuned on some of the labels, and quantized. From scratch means the same "
        "labels and the same schedule, beginning with random weights.",
    ),
    Section(
        "A network for ImageNet, on crops of photographs",
        "mobilenet_v2",
        chip.agreement,
        "The crops have no labels, so the figure is how often the integer network and the float "
        "network predict the same class, with its standard error, and the signal-to-quantization-"
        "noise ratio of the logits. The agreement is a noisy figure: noise of one millionth in the "
        "calibration crops moved that of w8a8-minmax between 79.3 and 81.2 %, and other crops "
        "between 80.5 and 82.8 %.",
    ),
    Section(
        "The same network with weights of four bits",
        "reconstruction",
        chip.agreement,
        "Reconstruction learns how the weights of each block are rounded.",
    ),
    Section(
        "What an exploration finds",
        "exploration",
        chip.exploration,
        "Each preset stands above a point of the front that is no worse in accuracy, bytes and "
        "cycles on the images on which points were chosen. The accuracies here are those of other "
        "images. The last row says what the study cost.",
        picture="images/exploration.svg",
    ),
    Section(
        "Transformers in integers",
        transformer_table.WHAT,
        transformer_table.build,
        "Fake-quantized is the float simulation that was calibrated; integer, C and RTL are the "
        "program itself on different engines.",
        beside=(transformer_table.SIMULATED,),
    ),
    Section(
        "Every integer is the oracle's",
        "exactness",
        chip.exactness,
        "The fast engine runs on a GPU; every integer of every edge is compared with the oracle, "
        "which is plain NumPy.",
    ),
    Section(
        "Random programs, every engine",
        "random_programs",
        chip.random_programs,
        "Programs are drawn at random, over every operator.",
    ),
    Section(
        "C beside ONNX Runtime",
        "c_speed",
        chip.c_speed,
        "One image at a time on one thread. The last row counts the outputs of the C that differ "
        "from the oracle.",
    ),
    Section(
        "C of layers with zeros",
        "sparse_c",
        chip.sparse_c,
        "One layer of 8-bit weights and its requantization at a time, on one thread. The columns "
        "behind the first hold the time of the layer with these zeros, divided by its time without "
        "zeros. Tiles are blocks of 8 outputs and 8 inputs at one kernel position. A figure near 1 "
        "means that the dense code is used, because it is as fast.",
    ),
    Section(
        "The reference design in simulation",
        "rtl_simulation",
        chip.rtl_simulation,
        "Whole networks run through the SystemVerilog in Verilator. The formula is the one of the "
        "hardware model.",
    ),
    Section(
        "Zeros in the reference design",
        "sparse_rtl",
        chip.sparse_rtl,
        "ResNet-20, pruned by magnitude, on an array of 8 × 8; 2:4 runs on an array that takes two "
        "of four weights with their positions. In brackets is the share of the dense network's "
        "figure.",
    ),
    Section(
        "Time of the flow",
        "flow_time",
        chip.flow_time,
        "How long it takes to turn a float model into integers, on a CPU.",
    ),
    Section(
        "Speed of the engines",
        "engine_speed",
        chip.engine_speed,
        "The torch engine is the one that verification uses; the oracle is written to be read.",
    ),
    Section(
        "Networks without a line of code about them",
        "generality",
        chip.generality,
        "Networks of timm, converted as they are.",
    ),
)

ATTENTION = (
    Section(
        "What a head plan costs in answers",
        "head_plans",
        attention.head_plans,
        "The shipped picture-questions model answers held-out questions with and without a plan. "
        "A budget is the share of the model's output that the plan may lose on calibration data.",
    ),
    Section(
        f"Attention of one prefill layer, {QWEN}",
        "prefill_attention",
        partial(attention.prefill_lengths, shape=QWEN),
        "The plan makes the given share of the heads dense; the others see only the sinks and "
        "their own image.",
        picture="images/prefill_attention.png",
    ),
    Section(
        f"Attention of one prefill layer, {GEMMA}",
        "prefill_attention",
        partial(attention.prefill_lengths, shape=GEMMA),
        "The same for the heads of Gemma 3, which are twice as wide.",
    ),
    Section(
        f"Attention of one prefill layer, {QWEN}, by the size of images",
        "prefill_attention",
        partial(attention.prefill_images, shape=QWEN),
        "The same prompt length, divided into fewer and larger images.",
    ),
    Section(
        f"Time to the first token, {QWEN}'s text model",
        "time_to_first_token",
        attention.first_token,
        "A whole prefill: attention, linear layers and everything else.",
        picture="images/time-to-first-token.png",
    ),
    Section(
        "What calibrating heads costs",
        "calibration_cost",
        attention.calibration_cost,
        "Calibration measures every head of a dense prefill.",
    ),
)

SECTIONS = (*CHIP, *ATTENTION)
GROUPS = {"The chip pipeline": CHIP, "The attention pipeline": ATTENTION}


def main() -> int:
    """Writes, or checks, both; the exit status of a check is 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    table = headline.build(arguments.results)
    made = {
        arguments.page: render(arguments.results),
        arguments.readme: "\n\n".join(filter(None, [markdown(table), headline.note(table)])),
    }
    fresh = [_update(path, figures, check=arguments.check) for path, figures in made.items()]
    return int(arguments.check and not all(fresh))


def _update(path: Path, figures: str, *, check: bool) -> bool:
    """Writes figures into a file unless it is only checked; returns whether it had them."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    updated = with_figures(text, figures)
    if updated is None:
        print(f"{path.name} has no {START} ... {END}: nothing to write")
        return True
    if check:
        state = "up to date" if updated == text else "out of date: run benchmarks/figures.py"
        print(f"{path.name}: {state}")
    else:
        path.write_text(updated, encoding="utf-8")
    return updated == text


def with_figures(text: str, figures: str) -> str | None:
    """Returns a text with new figures between its markers; None if it has no markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n\n{figures}\n\n{end}{after}" if start and end else None


def render(folder: Path) -> str:
    """Returns every table that has rows, as Markdown."""
    parts = []
    for group, sections in GROUPS.items():
        if tables := [text for section in sections if (text := _section(section, folder))]:
            parts += [f"## {group}", *tables]
    return "\n\n".join(parts)


def _section(section: Section, folder: Path) -> str:
    """Returns a table below its heading; nothing where no row was measured."""
    rows = read_current(section.script, folder)
    beside = [row for other in section.beside for row in read_current(other, folder)]
    table = section.build([*rows, *beside]) if rows else []
    if not table:
        return ""
    has_picture = section.picture and (PAGE.parent / section.picture).is_file()
    parts = [
        f"### {section.title}",
        section.caption,
        *([f"![{section.title}]({section.picture})"] if has_picture else []),
        markdown(table),
        f"<sub>`benchmarks/{section.script}.py`, {origin_of(rows)}</sub>",
        *([older] if (older := outdated(rows)) else []),
    ]
    return "\n\n".join(parts)


def origin_of(rows: Sequence[Row]) -> str:
    """Says on what and when rows were measured."""
    devices = ", ".join(dict.fromkeys(f"{row['device']}" for row in rows))
    last = rows[-1]
    return (
        f"{devices}, {last['cores']} cores, PyTorch {last['torch']}, "
        f"{max(row['date'] for row in rows)[:10]}"
    )


def outdated(rows: Sequence[Row]) -> str:
    """Names the rows that are older than the code they measured, with their dates; may be empty."""
    old = [row for row in rows if is_outdated(row)]
    dates = " and ".join(sorted({row["date"][:10] for row in old}))
    if not old:
        return ""
    if len(old) == sum(is_ours(row) for row in rows):
        return f"*Older than the code: all rows of Photomask ({dates}).*"
    names = "; ".join(dict.fromkeys(f"{row['implementation']}, {row['network']}" for row in old))
    return f"*Older than the code: {names} ({dates}).*"


if __name__ == "__main__":
    sys.exit(main())
