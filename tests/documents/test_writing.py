"""Files and folders that appear whole or not at all, and delete nothing that is not Photomask's."""

import errno
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from photomask.documents import RECORD_FILE, OutputRecord, write_file, written_whole
from photomask.documents import writing as module
from photomask.errors import ExportError


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


class TestErrors:
    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), ValueError("bug")])
    def test_an_error_while_writing_leaves_the_earlier_output(self, error, tmp_path):
        write(tmp_path / "out", "old")
        expected = ExportError if isinstance(error, OSError) else ValueError

        def fail() -> None:
            with written_whole(tmp_path / "out", "sample") as staging:
                (staging / "mark").write_text("half")
                raise error

        with pytest.raises(expected, match=r"No space|bug"):
            fail()
        assert contents(tmp_path / "out") == whole("old")
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("call", [1, 2, 3])
    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
    def test_a_rename_that_fails_leaves_one_whole_output(self, error, call, tmp_path, monkeypatch):
        write(tmp_path / "out", "old")
        replace, calls = os.replace, []

        def fail_once(source, destination):
            calls.append(destination)
            if len(calls) == call:
                raise error
            replace(source, destination)

        monkeypatch.setattr(module.os, "replace", fail_once)
        with pytest.raises((ExportError, KeyboardInterrupt)):
            write(tmp_path / "out")
        assert contents(tmp_path / "out") == whole("new" if call == 3 else "old")
        assert names(tmp_path) == ["out"]

    def test_a_parent_that_cannot_be_made_is_an_export_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ExportError, match="cannot write"):
            write(tmp_path / "file" / "out")
        with pytest.raises(ExportError, match="cannot write"):
            write_file(tmp_path / "file" / "out", b"")

    def test_a_folder_that_may_not_be_written_is_an_export_error(self, tmp_path, monkeypatch):
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(ExportError, match="Permission denied"):
            write(tmp_path / "out")


def write_and_die(destination: Path, point: int) -> None:
    """Writes an output and dies without warning at one of the places that change the disk."""
    calls = [0]

    def dying(function: Callable) -> Callable:
        def call(*arguments, **options):
            calls[0] += 1
            if calls[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("replace", "open", "close", "chmod", "rmdir", "unlink", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))
    write(destination)


def run(function: Callable, *arguments: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


class TestKills:
    def test_a_kill_at_any_point_loses_nothing_and_the_next_run_cleans_up(self, tmp_path):
        ends = set()
        for point in range(1, 200):
            folder = tmp_path / str(point)
            write(folder / "out", "old")
            process = run(write_and_die, folder / "out", point)
            process.join()
            ends.add(process.exitcode)
            if process.exitcode == 0:
                break
            if (folder / "out").exists():
                assert contents(folder / "out") in (whole("old"), whole("new"))
            with pytest.raises(ExportError), written_whole(folder / "out", "sample"):
                raise OSError("full")  # already this run puts back and removes
            assert contents(folder / "out") in (whole("old"), whole("new"))
            assert names(folder) == ["out"]
            write(folder / "out", "newest")
            assert contents(folder / "out") == whole("newest")
        assert ends == {0, -signal.SIGKILL}

    def test_what_a_live_process_writes_is_left_alone(self, tmp_path):
        def slowly() -> None:
            with written_whole(tmp_path / "out", "sample") as staging:
                (staging / "mark").write_text("slow")
                (tmp_path / "started").touch()
                while not (tmp_path / "go").exists():
                    time.sleep(0.005)

        process = run(slowly)
        while not (tmp_path / "started").exists():
            time.sleep(0.005)
        write(tmp_path / "out", "fast")
        assert contents(tmp_path / "out") == whole("fast")
        (tmp_path / "go").touch()
        process.join()
        assert process.exitcode == 0
        assert contents(tmp_path / "out") == {"mark": "slow"}
        assert names(tmp_path) == ["go", "out", "started"]

    @pytest.mark.parametrize(
        "name",
        [
            ".out.abcdef12",
            ".out.old.abcdef12",
            ".out.photomask-notes",
            ".out.photomask-0123456789abcdef",
            ".another.photomask-0123456789abcdef",
        ],
    )
    def test_what_only_looks_like_a_leftover_stays(self, name, tmp_path):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
        write(tmp_path / "out")
        assert (tmp_path / name / "thesis.tex").is_file()

    def test_concurrent_writers_leave_one_whole_output(self, tmp_path):
        write(tmp_path / "out", "old")
        failures: list[BaseException] = []

        def repeat(text: str) -> None:
            try:
                for _ in range(15):
                    write(tmp_path / "out", text)
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        threads = [threading.Thread(target=repeat, args=(text,)) for text in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert contents(tmp_path / "out") in [whole(text) for text in "abc"]
        assert names(tmp_path) == ["out"]


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
