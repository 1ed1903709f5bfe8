"""A small output of two files, and what a folder holds."""

from pathlib import Path

from photomask.documents import RECORD_FILE, written_whole


def write(destination: Path, text: str = "new", output: str = "sample") -> None:
    with written_whole(destination, output) as staging:
        (staging / "part").mkdir()
        (staging / "mark").write_text(text)
        (staging / "part" / "mark").write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD_FILE
    }


def whole(text: str) -> dict[str, str]:
    return {"mark": text, "part/mark": text}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
