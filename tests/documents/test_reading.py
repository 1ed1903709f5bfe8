"""Strict documents, and readers that never wait and never read without end."""

import os
import socket
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from photomask.documents import Document, is_file, is_folder, read_bytes, read_text, sha256_of
from photomask.documents.document import MOST_VALUES
from photomask.errors import DocumentError


class Sample(Document):
    count: int
    scale: float = 1.0
    names: tuple[str, ...] = ()


class Versioned(Document):
    schema_version: Literal[1] = 1


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

    def test_a_document_of_millions_of_values_is_refused_before_it_is_read(self):
        text = '{"names": [' + "1," * MOST_VALUES + "1]}"
        with pytest.raises(DocumentError, match="JSON values"):
            Sample.parse(text, "here")

    def test_a_hundred_thousand_wrong_fields_are_counted_not_listed(self):
        text = "{" + ",".join(f'"k{i}": 0' for i in range(100_000)) + "}"
        with pytest.raises(DocumentError, match=r"^here: 100,001 fields are .*unknown"):
            Sample.parse(text, "here")

    @pytest.mark.parametrize("version", ["true", "1.0", '"1"', "2"])
    def test_a_version_that_is_not_the_number_is_refused(self, version: str):
        assert Versioned.parse('{"schema_version": 1}', "here") == Versioned()
        with pytest.raises(DocumentError, match="here: field schema_version"):
            Versioned.parse(f'{{"schema_version": {version}}}', "here")

    @pytest.mark.parametrize(
        "text", ['{"count": 1, "count": 1}', '{"count": 1, "co\\u0075nt": 2, "scale": 2.0}']
    )
    def test_a_field_that_is_there_twice_is_refused_by_name(self, text: str):
        with pytest.raises(DocumentError, match="here: the field 'count' is there twice"):
            Sample.parse(text, "here")

    @pytest.mark.parametrize("text", ['{"names": ["\ud800"]}', '{"names": ["\\ud800"]}'])
    def test_a_lone_surrogate_is_refused(self, text: str):
        with pytest.raises(DocumentError, match="here: "):
            Sample.parse(text, "here")


class TestReading:
    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
    def test_a_device_is_refused(self, device: str):
        with pytest.raises(DocumentError, match="it is a device, but a file was expected"):
            read_bytes(Path(device))

    def test_a_pipe_without_a_writer_is_refused_at_once(self, tmp_path: Path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DocumentError, match="it is a pipe"):
            read_text(tmp_path / "pipe")

    def test_a_socket_and_a_folder_are_refused(self, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            with pytest.raises(DocumentError, match="cannot read"):
                read_text(tmp_path / "socket")
        with pytest.raises(DocumentError, match="it is a folder"):
            read_text(tmp_path)

    def test_a_sparse_file_of_a_terabyte_is_refused(self, tmp_path: Path):
        with (tmp_path / "large").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(DocumentError, match="holds 1,099,511,627,776 bytes, but at most"):
            sha256_of(tmp_path / "large")

    def test_a_link_to_a_file_is_read_and_a_circle_of_links_refused(self, tmp_path: Path):
        (tmp_path / "file").write_text("text")
        (tmp_path / "link").symlink_to("file")
        assert read_text(tmp_path / "link") == "text"
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(DocumentError, match="cannot read"):
            read_text(tmp_path / "a")

    @pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\udcff\ud800", "x" * 5000])
    def test_a_name_that_no_file_can_have_is_no_file(self, name: str):
        assert not is_file(name)
        assert not is_folder(name)
        with pytest.raises(DocumentError, match="cannot read"):
            read_text(Path(name))


def test_a_small_file_is_read_under_a_limit_beyond_all_memory(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"abc" * 30_000)
    assert read_bytes(tmp_path / "small", 1 << 62) == b"abc" * 30_000
