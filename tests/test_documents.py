"""Strict documents, and folders that appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from photomask import documents
from photomask.documents import Document, read_text, sha256_of, written_whole
from photomask.errors import DocumentError, ExportError


class Sample(Document):
    count: int
    scale: float = 1.0
    names: tuple[str, ...] = ()


def mine(folder: Path) -> bool:
    return (folder / "mark").is_file()


def write(destination: Path, text: str = "new") -> None:
    with written_whole(destination, mine) as staging:
        (staging / "mark").write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


class TestDocument:
    def test_a_document_survives_its_text(self):
        sample = Sample(count=3, scale=0.1, names=("é", "b"))
        assert Sample.parse(sample.render(), "here") == sample
        assert sample.render().endswith("\n")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            '{"count": "3"}',
            '{"count": 3.0}',
            '{"count": true}',
            '{"count": null}',
            '{"scale": 1.0}',
            '{"count": 3, "scale": NaN}',
            '{"count": 3, "scale": 1e999}',
            '{"count": 3, "names": "ab"}',
            '{"count": 3, "other": 1}',
            '{"count": ' + "9" * 9999 + "}",
            "[" * 9999,
            '{"count": 3} trailing',
        ],
    )
    def test_anything_else_is_refused_with_its_origin(self, text: str):
        with pytest.raises(DocumentError, match="here: "):
            Sample.parse(text, "here")

    def test_the_wrong_field_is_named(self):
        with pytest.raises(DocumentError, match=r"field count: .*field other: "):
            Sample.parse('{"count": "3", "other": 1}', "here")

    def test_a_document_never_changes(self):
        with pytest.raises(ValidationError, match="frozen"):
            Sample(count=1).count = 2  # type: ignore[misc]

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_a_file_that_cannot_be_read_is_refused(self, content, tmp_path):
        path = tmp_path / "file"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DocumentError, match="cannot read"):
            read_text(path)

    def test_the_hash_is_of_the_bytes(self, tmp_path):
        (tmp_path / "file").write_bytes(b"abc")
        assert sha256_of(tmp_path / "file").startswith("ba7816bf8f01cfea")


class TestWrittenWhole:
    def test_a_new_folder_appears_with_its_parents(self, tmp_path):
        write(tmp_path / "a" / "b")
        assert contents(tmp_path / "a" / "b") == {"mark": "new"}
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]

    def test_an_earlier_output_is_replaced_whole(self, tmp_path):
        write(tmp_path / "out", "old")
        (tmp_path / "out" / "left over").write_text("old")
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == {"mark": "new"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_an_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "out").mkdir()
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == {"mark": "new"}

    def test_a_relative_path_and_the_folder_itself(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(Path("out"))
        assert contents(tmp_path / "out") == {"mark": "new"}

    def test_something_else_is_refused_and_untouched(self, tmp_path):
        (tmp_path / "thesis").write_text("years of work")
        with pytest.raises(ExportError, match="not an earlier output"):
            write(tmp_path)
        with pytest.raises(ExportError, match="is a file"):
            write(tmp_path / "thesis")
        assert contents(tmp_path) == {"thesis": "years of work"}

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), ValueError("bug")])
    def test_an_error_while_writing_leaves_the_earlier_output(self, error, tmp_path):
        write(tmp_path / "out", "old")
        expected = ExportError if isinstance(error, OSError) else ValueError

        def fail() -> None:
            with written_whole(tmp_path / "out", mine) as staging:
                (staging / "mark").write_text("half")
                raise error

        with pytest.raises(expected, match=r"No space|bug"):
            fail()
        assert contents(tmp_path / "out") == {"mark": "old"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_full_disk_at_the_last_rename_puts_the_earlier_output_back(
        self, tmp_path, monkeypatch
    ):
        write(tmp_path / "out", "old")
        replace, calls = os.replace, []

        def fail_once(source, destination):
            calls.append(destination)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left")
            replace(source, destination)

        monkeypatch.setattr(documents.os, "replace", fail_once)
        with pytest.raises(ExportError, match="No space"):
            write(tmp_path / "out")
        assert contents(tmp_path / "out") == {"mark": "old"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_parent_that_cannot_be_made_is_an_export_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ExportError, match="cannot write"):
            write(tmp_path / "file" / "out")

    def test_a_kill_while_writing_leaves_the_earlier_output(self, tmp_path):
        write(tmp_path / "out", "old")
        program = (
            "import os, signal, sys\nfrom pathlib import Path\n"
            "from photomask.documents import written_whole\n"
            "with written_whole(Path(sys.argv[1]), lambda old: True) as staging:\n"
            "    (staging / 'mark').write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, tmp_path / "out"], check=False)
        assert done.returncode == -signal.SIGKILL
        assert contents(tmp_path / "out") == {"mark": "old"}
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == {"mark": "new"}
