"""Does any damaged file load as something else, hang, or end in a traceback?

Good files of every kind that the package reads are damaged, half of them with all hashes computed
anew, and read through the public entry point. An outcome is `refused` (a `PhotomaskError`),
`harmless` (accepted, and held to be what the bytes say), `wrong`, `traceback` or `slow`.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from damage import KINDS, Task, Verdict, make_specimens, run_all

OUTCOMES = ("refused", "harmless", "wrong", "tracebacks", "slow")
SHOWN = 5
"""Findings of a kind that are printed."""


def main() -> int:
    """Damages and reads; the exit status is 1 if a file was wrong, slow or ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--keep", type=Path, help="a folder for the files that were read wrongly")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.monotonic()
    task = Task(KINDS, make_specimens(arguments.kinds), arguments.seed, arguments.keep)
    made = time.monotonic() - started
    tally = Tally(task)
    numbers = range(arguments.first, arguments.first + arguments.files)
    run_all(task, numbers, tally.add, started + arguments.seconds)
    seconds = time.monotonic() - started - made
    tally.show()
    print(f"specimens {made:.1f} s, reading {seconds:.1f} s, {tally.tried / seconds:.0f} files/s")
    print(json.dumps(tally.summary()))
    return int(tally.failed > 0)


class Tally:
    """Counts outcomes by kind and tells what is not right at once."""

    def __init__(self, task: Task):
        self.task = task
        self.counts: dict[str, Counter[str]] = {}

    def add(self, verdict: Verdict) -> None:
        """Counts one verdict."""
        outcome = "tracebacks" if verdict.outcome == "traceback" else verdict.outcome
        counts = self.counts.setdefault(verdict.kind, Counter())
        counts[outcome] += 1
        if outcome in OUTCOMES[2:]:
            self.task.keep_files(verdict)
            if counts[outcome] <= SHOWN:
                print(
                    f"{outcome}: {verdict.kind}, file {verdict.number} of seed {self.task.seed}: "
                    f"{verdict.says}",
                    file=sys.stderr,
                    flush=True,
                )

    @property
    def tried(self) -> int:
        """Files that were read."""
        return sum(counts.total() for counts in self.counts.values())

    @property
    def failed(self) -> int:
        """Files that were not read as they should be."""
        return sum(counts[name] for counts in self.counts.values() for name in OUTCOMES[2:])

    def show(self) -> None:
        """Prints the counts of every kind."""
        print(f"{'kind':18}" + "".join(f"{name:>12}" for name in ("tried", *OUTCOMES)))
        for kind, counts in sorted(self.counts.items()):
            numbers = (counts.total(), *(counts[name] for name in OUTCOMES))
            print(f"{kind:18}" + "".join(f"{number:12,}" for number in numbers))

    def summary(self) -> dict[str, int]:
        """Returns all counts together."""
        total = sum(self.counts.values(), Counter())
        return {"tried": self.tried} | {name: total[name] for name in OUTCOMES}


if __name__ == "__main__":
    sys.exit(main())
