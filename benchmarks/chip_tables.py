"""The tables of the chip pipeline: rows that were measured become lines of a table."""

import math
import re
from collections.abc import Sequence

from table_cells import Row, Table, grid, value, versioned


def accuracy(rows: Sequence[Row]) -> Table:
    """Top-1 of everyone on both networks."""
    images = rows[0]["note"].partition(",")[0]
    return grid(rows, f"top-1, {images}", lambda cell: value(cell, "top1", 2))


def few_bits(rows: Sequence[Row]) -> Table:
    """Top-1 by width, then by how a network was quantized; the float network first."""

    def place(row: Row) -> tuple[int, str, str]:
        name, _, flow = row["implementation"].partition(", ")
        width = name.rpartition(" ")[2]
        return -int(width[1:].replace("A", "")) if flow else -99, flow, name

    # Whatever machine measured it: the last word on each way counts.
    newest = {(row["implementation"], row["network"], row["metric"]): row for row in rows}
    ordered = sorted(newest.values(), key=place)
    return grid(ordered, "top-1", lambda cell: value(cell, "top1", 2) + _effort(cell))


def pruning(rows: Sequence[Row]) -> Table:
    """Top-1 by network and way of pruning, and the integer weights that are zero."""
    newest = {(row["implementation"], row["network"], row["metric"]): row for row in rows}
    ordered = sorted(newest.values(), key=lambda row: row["implementation"] != "float")
    table: Table = [("", "network", "top-1", "weights that are 0")]
    for name, network in dict.fromkeys((r["implementation"], r["network"]) for r in ordered):
        own = [r for r in ordered if (r["implementation"], r["network"]) == (name, network)]
        top1 = value(own, "top1", 2) + _effort(own)
        table.append((versioned(name, rows), network, top1, value(own, "zeros", 0)))
    return table


def channels(rows: Sequence[Row]) -> Table:
    """Top-1 and parameters of networks without some of their channels."""
    table: Table = [(f"MobileNetV1, {rows[0]['note'].partition(',')[0]}", "top-1", "parameters")]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = [row for row in rows if row["implementation"] == name]
        found = [row["value"] for row in own if row["metric"] == "parameters"]
        parameters = f"{int(float(found[0])):,}" if found else "–"
        table.append((versioned(name, rows), value(own, "top1", 2) + _effort(own), parameters))
    return table


def _effort(rows: Sequence[Row]) -> str:
    """Returns the epochs that something took, or the steps a block and the images for them."""
    learned = re.compile(r", (?:(\d+ epochs?)|(\d+ steps) a block, each of \d+ of (\d+ images))")
    found = learned.search(rows[0]["note"]) if rows else None
    return "".join(f", {part}" for part in found.groups() if part) if found else ""


def accumulators(rows: Sequence[Row]) -> Table:
    """Top-1, the accumulator that a program proves to be enough, and zeros; the widest first."""

    def place(row: Row) -> tuple[int, str]:
        name = row["implementation"]
        return -int(re.search(r"(\d+)-bit sums", name)[1]), name  # pyright: ignore

    ordered = sorted(rows, key=place)
    table: Table = [
        ("ResNet-20, W4A4", "top-1", "proven accumulator", "weights that are 0", "projected")
    ]
    for name in dict.fromkeys(row["implementation"] for row in ordered):
        own = [row for row in ordered if row["implementation"] == name]
        cells = (("top1", 2), ("proven", 0), ("zeros", 0), ("projected", 0))
        table.append((versioned(name, rows), *(value(own, *cell) for cell in cells)))
    return table


def agreement(rows: Sequence[Row]) -> Table:
    """Agreement with the float network, and signal to noise."""
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    head = f"MobileNetV2, ImageNet weights, {rows[0]['note'].partition(',')[0]}"
    table: Table = [(head, "top-1 agreement with float", "SQNR")]
    for name in names:
        own = [row for row in rows if row["implementation"] == name]
        cells = (f"{value(own, 'agreement', 1)}{_sampling_error(own)}", value(own, "sqnr", 1))
        table.append((versioned(name, rows), *cells))
    return table


def _sampling_error(rows: Sequence[Row]) -> str:
    """Returns the standard error of an agreement on so many samples, `sqrt(p (1 - p) / n)`."""
    for row in rows:
        if row["metric"] == "agreement" and (samples := row["note"].partition(" ")[0]).isdigit():
            share = float(row["value"]) / 100
            return f" ± {100 * math.sqrt(share * (1 - share) / int(samples)):.1f}"
    return ""


def exploration(rows: Sequence[Row]) -> Table:
    """Each preset, a point of the front that is no worse, and what the study cost."""
    head = ("ResNet-20, Fashion-MNIST", "top-1", "weights", "accumulator", "cycles", "energy")
    table: Table = [head]
    for name in dict.fromkeys(row["implementation"] for row in rows if row["metric"] == "top1"):
        own = [row for row in rows if row["implementation"] == name]
        weights, cycles = (
            f"{float(value(own, metric, 0, unit=False)):,.0f}" for metric in ("weights", "cycles")
        )
        cells = (value(own, "top1", 2), f"{weights} bytes", value(own, "accumulator", 0), cycles)
        point = own[0]["note"].partition(";")[0]
        label = f": {point}" if " instead of " in name else ""
        table.append((versioned(name, rows) + label, *cells, value(own, "energy", 1)))
    study = [row for row in rows if row["implementation"].endswith(" study")]
    counts = ", ".join(
        f"{value(study, outcome, 0, unit=False)} {outcome}"
        for outcome in ("measured", "repeated", "infeasible")
    )
    time = f"{value(study, 'time', 1)}, {value(study, 'time per trial', 2)} per trial"
    table.append((f"the study: {counts}", time, *[""] * 4))
    return table


def exactness(rows: Sequence[Row]) -> Table:
    """Integers compared and mismatches."""
    table: Table = [("network", "torch engine on", "images", "integers compared", "mismatches")]
    for row in rows:
        if row["metric"] != "integers":
            continue
        keys = ("network", "implementation", "device")
        own = [r for r in rows if all(r[key] == row[key] for key in keys)]
        label = f"{row['network']}, {row['implementation'].partition(' ')[2]}"
        images = row["note"].partition(" ")[0]
        mismatches = value(own, "mismatches", 0, unit=False)
        table.append((label, row["device"], images, f"{int(float(row['value'])):,}", mismatches))
    return table


def flow_time(rows: Sequence[Row]) -> Table:
    """Seconds from a float model to integers, beside the peers."""
    table: Table = [("float model to integers", "network", "seconds", "peak memory", "SQNR")]
    for row in rows:
        if row["metric"] in ("float model to integers", "capture to export"):
            keys = ("network", "implementation")
            own = [r for r in rows if all(r[key] == row[key] for key in keys)]
            name = versioned(row["implementation"], own)
            if row["metric"] == "capture to export":
                name += ", " + row["metric"]
            seconds = value(own, row["metric"], 1, unit=False)
            cells = (seconds, value(own, "peak memory", 1), value(own, "sqnr", 1))
            table.append((name, row["network"], *cells))
    return table


def engine_speed(rows: Sequence[Row]) -> Table:
    """Images per second of the float model and the engines, device by device."""
    speeds = [row for row in rows if row["metric"] == "speed"]
    devices = {row["device"] for row in speeds}
    if len(devices) > 1:
        speeds = [
            {**row, "implementation": f"{row['implementation']}, {row['device']}"} for row in speeds
        ]
    return grid(speeds, "images per second", lambda cell: value(cell, "speed", 1, unit=False))


def generality(rows: Sequence[Row]) -> Table:
    """Networks that nobody wrote a line for."""
    head = ("timm, random weights", "steps", "integers compared", "mismatches", "SQNR", "seconds")
    table: Table = [head]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        counts = (value(own, metric, 0, unit=False) for metric in ("steps", "integers"))
        mismatches = value(own, "mismatches", 0, unit=False)
        times = value(own, "conversion", 1, unit=False)
        table.append((network, *counts, mismatches, value(own, "sqnr", 1), times))
    return table


def random_programs(rows: Sequence[Row]) -> Table:
    """Integers compared with the oracle's, of programs drawn at random."""
    programs = rows[0]["note"].partition(",")[0]
    table: Table = [(programs, "integers compared", "mismatches")]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = [row for row in rows if row["implementation"] == name]
        integers = f"{int(value(own, 'integers', 0, unit=False)):,}"
        table.append((name, integers, value(own, "mismatches", 0, unit=False)))
    return table


def c_speed(rows: Sequence[Row]) -> Table:
    """Time of an image in compiled C and in ONNX Runtime, and what C got wrong."""
    timed = [row for row in rows if row["metric"] in ("time per image", "mismatches")]
    table = grid(
        [row for row in timed if row["metric"] == "time per image"],
        "milliseconds an image, one thread",
        lambda cell: value(cell, "time per image", 2, unit=False),
    )
    wrong = (
        value([row for row in timed if row["network"] == network], "mismatches", 0, unit=False)
        for network in table[0][1:]
    )
    return [*table, ("integers that differ from the oracle's", *wrong)]


def sparse_c(rows: Sequence[Row]) -> Table:
    """Time of layers with zeros over the time of the same layers without them."""
    kinds = list(dict.fromkeys(row["implementation"].partition(", ")[2] for row in rows))
    table: Table = [("layer", "dense, us", *(kind for kind in kinds if kind != "dense"))]
    for layer in dict.fromkeys(row["network"] for row in rows):
        cells = {
            (row["implementation"].partition(", ")[2], row["metric"]): float(row["value"])
            for row in rows
            if row["network"] == layer
        }
        times = (f"{cells[kind, 'time over dense']:.2f}" for kind in kinds if kind != "dense")
        table.append((layer, f"{cells['dense', 'time']:.1f}", *times))
    return table


def rtl_simulation(rows: Sequence[Row]) -> Table:
    """Whole inferences through the reference design."""
    metrics = {
        "integers compared": 0,
        "mismatches": 0,
        "RTL cycles": 0,
        "formula's cycles": 0,
        "build": 1,
        "run and compare": 1,
    }
    heads = [f"{name}, s" if digits else name for name, digits in metrics.items()]
    table: Table = [("one image", *heads)]
    for network in dict.fromkeys(row["network"] for row in rows if row["metric"] == "build"):
        own = [row for row in rows if row["network"] == network]
        cells = (value(own, name, digits, unit=False) for name, digits in metrics.items())
        table.append(
            (
                network,
                *(f"{float(cell):,.{d}f}" for cell, d in zip(cells, metrics.values(), strict=True)),
            )
        )
    return table


def sparse_rtl(rows: Sequence[Row]) -> Table:
    """Cycles and weight memory of pruned networks, beside the dense one of the same widths."""
    metrics = {
        "mismatches": "wrong integers",
        "RTL cycles": "RTL cycles",
        "formula's cycles": "formula's cycles",
        "RTL cycles of the layers that 2:4 prunes": "RTL cycles of the layers that 2:4 prunes",
        "weight memory": "weight memory, bytes",
    }
    compared = ("RTL cycles", *tuple(metrics)[3:])
    table: Table = [("one image", *metrics.values())]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = [row for row in rows if row["implementation"] == name]
        dense = f"dense, {name.rpartition(', ')[2]}"
        cells = []
        for metric in metrics:
            (number,) = (float(row["value"]) for row in own if row["metric"] == metric)
            (whole,) = (
                float(row["value"])
                for row in rows
                if row["implementation"] == dense and row["metric"] == metric
            )
            share = f" ({number / whole:.2f})" if name != dense and metric in compared else ""
            cells.append(f"{number:,.0f}{share}")
        table.append((name, *cells))
    return table
