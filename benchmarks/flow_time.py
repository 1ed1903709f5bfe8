"""How long does it take from a float model to integers, and how much memory?

Part one: ResNet-18 at 224x224 with random weights, 128 calibration images, min-max ranges. Ours
ends with an integer program, the others with what they make: a PT2E graph, a QDQ file (the ONNX
export is part of its flow), a fake-quantized module. Every run is a process of its own, the
implementations take turns, and imports are over before the clock starts. Our program must equal
the oracle, or it has no time.

Part two: MobileNetV2 with ImageNet weights, from capture to export, stage by stage.
"""

import argparse
import json
import subprocess
import sys

from rows import Results, Subject

WHAT = "flow_time"
RESNET, MOBILENET = "resnet18", "mobilenet_v2"
OURS = "photomask w8a8-minmax"
PEERS = (
    "torchao PT2E min-max",
    "torchao PT2E histogram",
    "ONNX Runtime MinMax",
    "Brevitas calibrated",
    "Brevitas bias-corrected",
    "AIMET min-max",
)
CHILD = "--child"


def main() -> int:
    """Runs both parts; the exit status is 1 if our own flow fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["peers", "stages"])
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--images", type=int, default=128, help="calibration images of part one")
    parser.add_argument("--calibration", type=int, default=64, help="calibration of part two")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recipe", default="w8a8", help="of part two")
    arguments = parser.parse_args()
    results, passed = Results(WHAT), True
    if "peers" in arguments.parts:
        passed &= compare(results, arguments)
    if "stages" in arguments.parts:
        passed &= time_stages(results, arguments)
    return int(not passed)


def compare(results: Results, arguments: argparse.Namespace) -> bool:
    """Times everyone's flow on ResNet-18, in turns; tells whether ours ran."""
    names = [OURS, *arguments.peers]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(arguments.repetitions):
        for name in names:
            if any("skipped" in answer for answer in found[name]):
                continue
            options = ["--implementation", name, "--images", str(arguments.images)]
            found[name].append(run_child("flow", options, arguments))
    note = f"{arguments.images} images {arguments.size}x{arguments.size}"
    note += f", {arguments.threads} threads"
    for name, answers in found.items():
        package = answers[-1].get("package", "photomask")
        subject = Subject(WHAT, name, RESNET, package=package)
        reasons = [answer["skipped"] for answer in answers if "skipped" in answer]
        if reasons:
            results.skipped(subject, reasons[0])
            continue
        seconds = [answer["seconds"] for answer in answers]
        results.samples(subject, "float model to integers", seconds, "s", note=note)
        peaks = [answer["peak_gib"] for answer in answers]
        results.samples(subject, "peak memory", peaks, "GiB", note=note)
        results.number(subject, "sqnr", answers[0]["sqnr_db"], "dB", note=note)
    return not any(failed(answer) for answer in found[OURS])


def failed(answer: dict) -> bool:
    """Tells a failure from a measurement, and from something that is not installed."""
    return "skipped" in answer and not answer.get("missing", False)


def time_stages(results: Results, arguments: argparse.Namespace) -> bool:
    """Times each stage of our flow on MobileNetV2; tells whether it ran."""
    options = ["--recipe", arguments.recipe, "--images", str(arguments.calibration)]
    answers = [
        run_child("stages", options, arguments) for _ in range(max(1, arguments.repetitions))
    ]
    subject = Subject(WHAT, f"photomask {arguments.recipe}", MOBILENET)
    reasons = [answer["skipped"] for answer in answers if "skipped" in answer]
    if reasons:
        results.skipped(subject, reasons[0])
        return not any(failed(answer) for answer in answers)
    if mismatches := sum(answer["mismatches"] for answer in answers):
        results.skipped(subject, f"red gate: {mismatches} integers differ from the oracle")
        return False
    note = f"{arguments.calibration} calibration images, {arguments.threads} threads"
    for stage in answers[0]["stages"]:
        seconds = [answer["stages"][stage] for answer in answers]
        results.samples(subject, stage, seconds, "s", note=note)
    totals = [sum(answer["stages"].values()) for answer in answers]
    results.samples(subject, "capture to export", totals, "s", note=note)
    peaks = [answer["peak_gib"] for answer in answers]
    results.samples(subject, "peak memory", peaks, "GiB", note=note)
    results.number(subject, "sqnr", answers[0]["sqnr_db"], "dB", note=note)
    return True


def run_child(part: str, options: list[str], arguments: argparse.Namespace) -> dict:
    """Runs one measurement in a fresh process and returns its answer.

    This process never imports PyTorch: a child's peak memory would start at its parent's.
    """
    size = ["--threads", str(arguments.threads), "--size", str(arguments.size)]
    command = [sys.executable, __file__, CHILD, part, *options, *size]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = finished.stdout.strip().splitlines()
    if finished.returncode or not lines:
        error = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
        return {"skipped": error}
    return json.loads(lines[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        import flow_stages  # and PyTorch, which the parent does without

        flow_stages.run(sys.argv[2:])
    else:
        sys.exit(main())
