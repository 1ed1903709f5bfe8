"""Where, when and with which versions a report was made."""

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

import photomask
from photomask.documents import Document


class RunRecord(Document):
    """The circumstances of a measurement.

    Attributes:
        date: the day, in UTC.
        versions: of Python, Photomask, PyTorch and the packages that were asked for.
        device: where the model ran, such as `cpu` or the name of a GPU.
        command: the command line of the process, the program without its folder.
    """

    date: str
    versions: dict[str, str]
    device: str
    command: str = ""

    @classmethod
    def here(cls, device: torch.device, packages: Sequence[str] = ()) -> "RunRecord":
        """Describes this process.

        Args:
            device: where the model runs.
            packages: other packages whose versions matter; those that are absent are left out.
        """
        versions = {
            "Python": platform.python_version(),
            "photomask": photomask.__version__,
            "torch": str(torch.__version__),
        }
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return cls(date=today, versions=versions, device=name, command=_command())

    def facts(self) -> list[tuple[str, str]]:
        """Returns names and values for a section of a page."""
        facts = [
            ("date", self.date),
            ("device", self.device),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
        ]
        return [*facts, ("command", self.command)] if self.command else facts


def _command() -> str:
    """Returns the command line, `python -m photomask` written as `photomask`."""
    program, *arguments = sys.argv or [""]
    path = Path(program)
    name = path.parent.name if path.name == "__main__.py" else path.name
    return shlex.join([name, *arguments]) if name else ""
