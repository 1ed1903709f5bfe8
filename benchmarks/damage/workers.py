"""Reads damaged files in forked processes with limits on time and memory."""

import os
import random
import resource
import select
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path

import torch

from photomask.errors import PhotomaskError

from .damaging import damage
from .plain import difference
from .specimen import AmbiguousError, Files, Kind, Specimen, WrongError

SECONDS = 10.0
MOST_BYTES = 1 << 30
HARD_BYTES = 4 << 30
"""Address space beyond which an allocation fails, over what the process had at first."""
TOGETHER = 400
"""Files that one process reads before a fresh one takes over."""


@dataclass(frozen=True)
class Verdict:
    """What became of one damaged specimen.

    Attributes:
        number: of the specimen; with the seed it decides everything.
        kind: of file.
        outcome: refused, harmless, wrong, traceback or slow.
        says: what was done to the files, and what came of it.
    """

    number: int
    kind: str
    outcome: str
    says: str


def judge(
    kind: Kind, good: Files, files: Files, was_repaired: bool, folder: Path
) -> tuple[str, str]:
    """Reads damaged files and returns an outcome with its reason.

    Args:
        kind: of file.
        good: the files before they were damaged.
        files: the damaged ones; they lie in `folder` too.
        was_repaired: whether their hashes are true again.
        folder: to read from.
    """
    try:
        loaded = kind.read(folder)
    except PhotomaskError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except WrongError as error:
        return "wrong", str(error)
    except Exception as error:  # noqa: BLE001 - what a reader may never let through
        return "traceback", f"{type(error).__name__}: {error}"
    try:
        held = kind.held(loaded)
        if found := difference(kind.said(files), held):
            return "wrong", f"loaded another document: {found}"
        if kind.sealed and not was_repaired:
            before = kind.said(good)
            for name in kind.unhashed:
                before.pop(name, None)
            if found := difference(before, held):
                return "wrong", f"what was loaded has changed, and no hash told: {found}"
        kind.use(loaded, files)
    except AmbiguousError as error:
        return "wrong", f"accepted, although the bytes cannot be read: {error}"
    except WrongError as error:
        return "wrong", str(error)
    except PhotomaskError as error:
        return "wrong", f"cannot be used: {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - nor what it returns
        return "traceback", f"when used: {type(error).__name__}: {error}"
    return "harmless", ""


@dataclass(frozen=True)
class Task:
    """Everything that decides what is done.

    Attributes:
        kinds: by name.
        specimens: good files.
        seed: with a number it decides the damage.
        keep: a folder for the files that were not read rightly; None to keep none.
    """

    kinds: dict[str, Kind]
    specimens: Sequence[Specimen]
    seed: int
    keep: Path | None = None

    def make(self, number: int) -> tuple[Specimen, Files, bool, str]:
        """Returns a specimen, its damaged files, whether hashes were repaired, and the damage."""
        draw = random.Random(f"{self.seed}:{number}")
        weights = [self.kinds[specimen.kind].weight for specimen in self.specimens]
        (specimen,) = draw.choices(self.specimens, weights)
        kind = self.kinds[specimen.kind]
        other = draw.choice(self.specimens)
        others = [*other.files.values(), *specimen.files.values()]
        files, ways = damage(draw, specimen.files, kind.fixed, others)
        was_repaired = draw.random() < 0.5
        return (
            specimen,
            kind.repair(files) if was_repaired else files,
            was_repaired,
            "; ".join(ways),
        )

    def read(self, number: int, folder: Path) -> Verdict:
        """Damages, writes and reads the files of a number."""
        specimen, files, was_repaired, ways = self.make(number)
        write(files, folder)
        _forget_peak()
        before = _memory("VmRSS")
        start = time.perf_counter()
        kind = self.kinds[specimen.kind]
        outcome, reason = judge(kind, specimen.files, files, was_repaired, folder)
        seconds = time.perf_counter() - start
        if (grown := _memory("VmHWM") - before) > MOST_BYTES or seconds > SECONDS:
            outcome, reason = "slow", f"{seconds:.1f} s and {grown >> 20} MB; {reason}"
        says = f"{ways}{' (hashes repaired)' if was_repaired else ''}: {reason}"
        return Verdict(number, specimen.kind, outcome, says.encode("ascii", "replace").decode())

    def keep_files(self, verdict: Verdict) -> None:
        """Writes the files of a verdict where they were asked for."""
        if self.keep is not None:
            _, files, _, _ = self.make(verdict.number)
            write(
                files, self.keep / f"{verdict.outcome}-{verdict.kind}-{self.seed}-{verdict.number}"
            )


def write(files: Files, folder: Path) -> None:
    """Writes files into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_all(
    task: Task, numbers: Sequence[int], tell: Callable[[Verdict], None], until: float = float("inf")
) -> None:
    """Reads the files of every number; a process that hangs is ended, and a fresh one goes on.

    Args:
        task: what is done.
        numbers: of the files.
        tell: is called with every verdict.
        until: time by `time.monotonic` at which to stop.
    """
    place, threads = 0, torch.get_num_threads()
    torch.set_num_threads(1)  # threads do not live on in a forked process: it would wait for them
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as top:
        while place < len(numbers) and time.monotonic() < until:
            block = numbers[place : place + TOGETHER]
            place += _run_block(task, block, tell, Path(top) / "files", until)
    torch.set_num_threads(threads)


def _run_block(
    task: Task, block: Sequence[int], tell: Callable[[Verdict], None], folder: Path, until: float
) -> int:
    """Runs one process; returns how many files are done with."""
    read, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _work(task, block, folder, write_end)
    os.close(write_end)
    done = 0
    with os.fdopen(read, "rb", buffering=0) as answers:
        text = b""
        while done < len(block) and time.monotonic() < until:
            ready, _, _ = select.select([answers], [], [], 2 * SECONDS)
            part = answers.read(1 << 16) if ready else b""
            if not part:
                verdict = _lost(task, block[done], "hung" if not ready else "died")
                tell(verdict)
                done += 1
                break
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                tell(Verdict(**loads(line)))
                done += 1
    os.kill(child, 9)
    os.waitpid(child, 0)
    return done


def _lost(task: Task, number: int, how: str) -> Verdict:
    specimen, _, _, ways = task.make(number)
    return Verdict(number, specimen.kind, "slow", f"{ways}: the reading process {how}")


def _work(task: Task, block: Sequence[int], folder: Path, answers: int) -> None:
    """The life of a reading process."""
    room = _memory("VmSize") + HARD_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in block:
        try:
            verdict = task.read(number, folder)
        except BaseException as error:  # noqa: BLE001 - the benchmark's own fault is told too
            verdict = Verdict(number, "benchmark", "traceback", f"{type(error).__name__}: {error}")
        os.write(answers, dumps(asdict(verdict) | {"says": verdict.says[:800]}).encode() + b"\n")
    os._exit(0)


def _memory(field: str) -> int:
    """Returns a number of `/proc/self/status`, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
    return 0


def _forget_peak() -> None:
    """Lets the peak of this process's memory begin anew."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
