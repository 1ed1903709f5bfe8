"""Errors, kills and other writers while an output is written."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.documents.outputs import contents, names, whole, write

from photomask.documents import write_file, written_whole
from photomask.documents import writing as module
from photomask.errors import ExportError


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
