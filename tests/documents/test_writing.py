"""Files and folders that appear whole or not at all, and delete nothing that is not Photomask's."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.documents.outputs import contents, names, whole, write

from photomask.documents import RECORD_FILE, OutputRecord, write_file, written_whole
from photomask.documents import writing as module
from photomask.errors import ExportError


class TestWrittenWhole:
    def test_a_new_folder_appears_with_its_parents(self, tmp_path):
        write(tmp_path / "a" / "b")
        assert contents(tmp_path / "a" / "b") == whole("new")
        assert names(tmp_path / "a") == ["b"]

    def test_an_earlier_output_is_replaced_whole(self, tmp_path):
        write(tmp_path / "out", "old")
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == whole("new")
        assert names(tmp_path) == ["out"]

    def test_the_same_output_gives_the_same_record(self, tmp_path):
        write(tmp_path / "a")
        write(tmp_path / "b")
        assert (tmp_path / "a" / RECORD_FILE).read_bytes() == (
            tmp_path / "b" / RECORD_FILE
        ).read_bytes()

    def test_an_empty_folder_is_taken_and_keeps_its_permissions(self, tmp_path):
        (tmp_path / "out").mkdir(mode=0o750)
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == whole("new")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_new_files_and_folders_follow_the_umask(self, mask, tmp_path):
        before = os.umask(mask)
        try:
            write(tmp_path / "out")
            write_file(tmp_path / "file", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask

    def test_a_relative_path_is_seen_from_the_current_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(Path("out"))
        assert contents(tmp_path / "out") == whole("new")

    def test_a_current_folder_that_was_deleted_is_an_export_error(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(ExportError, match="cannot write"):
            write(Path("out"))
        with pytest.raises(ExportError, match="cannot write"):
            write_file(Path("out"), b"")

    @pytest.mark.parametrize("name", ["n" * 256, "a\0b", "\ud800", "n" * 5000])
    def test_a_name_that_cannot_be_is_an_export_error(self, name, tmp_path):
        with pytest.raises(ExportError, match="cannot write"):
            write(tmp_path / name)
        with pytest.raises(ExportError, match="cannot write"):
            write_file(tmp_path / name, b"")
        assert names(tmp_path) == []

    def test_the_longest_name_can_be_written(self, tmp_path):
        write(tmp_path / ("n" * 255))
        write(tmp_path / ("n" * 255))
        write_file(tmp_path / ("m" * 255), b"")
        assert names(tmp_path) == ["m" * 255, "n" * 255]

    def test_a_symbolic_link_stays_one(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        for text in ("old", "new"):
            write(tmp_path / "link", text)
            assert (tmp_path / "link").is_symlink()
            assert contents(tmp_path / "real") == whole(text)
        assert names(tmp_path) == ["link", "real"]

    def test_a_link_to_nothing_gets_its_target(self, tmp_path):
        (tmp_path / "link").symlink_to("real")
        write(tmp_path / "link")
        assert contents(tmp_path / "real") == whole("new")


def edit_a_file(folder: Path) -> None:
    (folder / "mark").write_text("mine")


def edit_within_the_same_length(folder: Path) -> None:
    (folder / "part" / "mark").write_text("olD")


def add_a_file(folder: Path) -> None:
    (folder / "thesis.tex").write_text("years of work")


def add_a_hidden_file(folder: Path) -> None:
    (folder / "part" / ".notes").write_text("mine")


def add_an_empty_folder(folder: Path) -> None:
    (folder / "ideas").mkdir()


def add_a_folder(folder: Path) -> None:
    (folder / "rtl").mkdir()
    (folder / "rtl" / "array.sv").write_text("module array; endmodule")


def replace_a_file_by_a_link(folder: Path) -> None:
    (folder / "mark").unlink()
    (folder / "mark").symlink_to("/etc/passwd")


def replace_a_folder_by_a_link(folder: Path) -> None:
    (folder / "part").rename(folder.parent / "elsewhere")
    (folder / "part").symlink_to(folder.parent / "elsewhere")


def add_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def replace_a_file_by_a_pipe(folder: Path) -> None:
    (folder / "mark").unlink()
    os.mkfifo(folder / "mark")


def remove_the_record(folder: Path) -> None:
    (folder / RECORD_FILE).unlink()


def damage_the_record(folder: Path) -> None:
    (folder / RECORD_FILE).write_text("{}")


CHANGES: dict[Callable[[Path], None], str] = {
    edit_a_file: r"mark \(changed since\)",
    edit_within_the_same_length: r"part/mark \(changed since\)",
    add_a_file: "thesis.tex",
    add_a_hidden_file: "part/.notes",
    add_an_empty_folder: "ideas/",
    add_a_folder: "rtl/",
    replace_a_file_by_a_link: r"mark \(a symbolic link\)",
    replace_a_folder_by_a_link: r"part \(a symbolic link\)",
    add_a_pipe: "pipe",
    replace_a_file_by_a_pipe: r"mark \(changed since\)",
    remove_the_record: "is not an earlier output",
    damage_the_record: "is not an earlier output",
}


def tree(folder: Path) -> dict[str, object]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else path.lstat().st_mode
        for path in folder.rglob("*")
    }


class TestForeignFiles:
    @pytest.mark.parametrize("change", CHANGES)
    def test_what_is_the_users_is_refused_by_name_and_untouched(self, change, tmp_path):
        write(tmp_path / "out", "old")
        change(tmp_path / "out")
        before = tree(tmp_path)
        with pytest.raises(ExportError, match=CHANGES[change]):
            write(tmp_path / "out")
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("change", [add_a_file, edit_a_file])
    def test_what_appears_while_an_output_is_written_is_refused_too(self, change, tmp_path):
        write(tmp_path / "out", "old")

        def change_in_between() -> None:
            with written_whole(tmp_path / "out", "sample") as staging:
                (staging / "mark").write_text("new")
                change(tmp_path / "out")

        with pytest.raises(ExportError, match="did not write"):
            change_in_between()
        assert names(tmp_path) == ["out"]
        assert set(contents(tmp_path / "out")) >= {"mark", "part/mark"}

    def test_a_file_that_is_missing_does_not_hinder(self, tmp_path):
        write(tmp_path / "out", "old")
        (tmp_path / "out" / "mark").unlink()
        write(tmp_path / "out")
        assert contents(tmp_path / "out") == whole("new")

    def test_another_kind_of_output_is_refused(self, tmp_path):
        write(tmp_path / "out", "old", output="something else")
        with pytest.raises(ExportError, match="another kind of output"):
            write(tmp_path / "out")

    def test_a_file_and_a_users_folder_are_refused(self, tmp_path):
        (tmp_path / "thesis").write_text("years of work")
        with pytest.raises(ExportError, match="not an earlier output"):
            write(tmp_path)
        with pytest.raises(ExportError, match="is a file"):
            write(tmp_path / "thesis")
        assert contents(tmp_path) == {"thesis": "years of work"}

    def test_a_hard_link_elsewhere_keeps_its_content(self, tmp_path):
        write(tmp_path / "out", "old")
        (tmp_path / "kept").hardlink_to(tmp_path / "out" / "mark")
        write(tmp_path / "out")
        assert (tmp_path / "kept").read_text() == "old"

    def test_an_output_inside_another_is_judged_by_its_own_record(self, tmp_path):
        write(tmp_path / "out", "old")
        write(tmp_path / "out" / "c", "inner", output="another kind")
        write_file(tmp_path / "out" / "report.html", b"page")
        write_file(tmp_path / "out" / "report.html", b"newer page")
        write(tmp_path / "out", "middle")
        assert contents(tmp_path / "out") == whole("middle")
        write(tmp_path / "out" / "c", "inner", output="another kind")
        add_a_file(tmp_path / "out" / "c")
        with pytest.raises(ExportError, match=r"c/thesis\.tex"):
            write(tmp_path / "out")

    def test_an_output_without_a_record_is_replaced_if_its_manifest_explains_it(self, tmp_path):
        folder = tmp_path / "out"
        write(folder, "old")
        (folder / RECORD_FILE).unlink()
        with (
            pytest.raises(ExportError, match="part/"),
            written_whole(folder, "sample", lambda _: ("mark",)),
        ):
            pass
        assert contents(folder) == whole("old")
        with written_whole(folder, "sample", lambda _: ("mark", "part/mark")) as staging:
            (staging / "mark").write_text("new")
        assert contents(folder) == {"mark": "new"}


class TestWriteFile:
    def test_a_file_is_replaced_and_keeps_its_permissions(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")
        path.chmod(0o640)
        write_file(path, b"new")
        assert path.read_bytes() == b"new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert names(tmp_path) == ["file"]

    def test_a_symbolic_link_stays_one(self, tmp_path):
        (tmp_path / "link").symlink_to("real")
        write_file(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"

    def test_a_device_gets_the_bytes_and_stays_one(self, tmp_path):
        write_file(Path("/dev/null"), b"new")
        assert Path("/dev/null").is_char_device()
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ExportError, match="cannot write"):  # nobody reads
            write_file(tmp_path / "pipe", b"new")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_file(tmp_path / "pipe", b"new")
        assert os.read(reader, 9) == b"new"
        os.close(reader)

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(ExportError, match="cannot write"):
            write_file(tmp_path, b"")

    def test_a_draft_of_a_killed_writer_is_removed_by_the_next(self, tmp_path):
        (tmp_path / ".file.photomask-0123456789abcdef").write_bytes(b"half")
        write_file(tmp_path / "file", b"new")
        assert names(tmp_path) == ["file"]

    def test_a_full_disk_leaves_the_earlier_file(self, tmp_path, monkeypatch):
        write_file(tmp_path / "file", b"old")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(module.os, "replace", full)
        with pytest.raises(ExportError, match="No space left"):
            write_file(tmp_path / "file", b"new")
        assert contents(tmp_path) == {"file": "old"}

    def test_a_record_counts_files_that_were_added(self, tmp_path):
        write(tmp_path / "out")
        write_file(tmp_path / "out" / "page.html", b"page")
        record = OutputRecord.load(tmp_path / "out")
        assert record is not None
        assert set(record.files) == {"mark", "part/mark", "page.html"}
