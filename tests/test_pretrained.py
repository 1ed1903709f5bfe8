"""Checkpoints that lie: no weight is invented, and nothing outside of the folder is opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from photomask.cli.vision_language import load_vision_language_model
from photomask.errors import DataError, DocumentError, UsageError
from photomask.pretrained import check_model_folder, load_pretrained

pytestmark = pytest.mark.filterwarnings("ignore")
INDEX = "model.safetensors.index.json"
OTHER = "pooler.dense.bias"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT of one layer in several files."""
    config = BertConfig(
        vocab_size=7,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    BertModel(config).save_pretrained(tmp_path, max_shard_size=6000)
    assert (tmp_path / INDEX).exists()
    return tmp_path


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def shard_of(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def test_a_good_checkpoint_is_loaded_with_its_own_weights(folder: Path):
    model = load_pretrained(BertModel, folder, exact=True)
    stored = load_file(shard_of(folder, OTHER))[OTHER]
    assert torch.equal(dict(model.named_parameters())[OTHER], stored)


@pytest.mark.parametrize("tensor", [OTHER, "embeddings.word_embeddings.weight"])
def test_a_missing_weight_is_refused_and_not_drawn(folder: Path, tensor: str):
    path = shard_of(folder, tensor)
    tensors = load_file(path)
    tensors[f"{tensor}x"] = tensors.pop(tensor)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(DataError, match=rf"lacks 1 weights: {tensor}"):
        load_pretrained(BertModel, folder)


def test_weights_of_no_layer_are_refused_where_the_checkpoint_must_be_exact(folder: Path):
    def remove_layers(config: Any) -> None:
        config["num_hidden_layers"] = 0

    edit(folder / "config.json", remove_layers)
    load_pretrained(BertModel, folder)
    with pytest.raises(DataError, match="has, beside the model's, 16 weights"):
        load_pretrained(BertModel, folder, exact=True)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../outside.safetensors", "", "..", "config.json", "gone.safetensors"]
)
def test_an_index_names_files_of_its_folder_alone(folder: Path, name: str):
    path = shard_of(folder, OTHER)
    (folder.parent / "outside.safetensors").write_bytes(path.read_bytes())
    edit(folder / INDEX, lambda index: index["weight_map"].update({OTHER: name}))
    with pytest.raises(DocumentError):
        load_pretrained(BertModel, folder)


def test_a_tensor_lies_in_one_file(folder: Path):
    path = shard_of(folder, OTHER)
    other = next(p for p in sorted(folder.glob("*.safetensors")) if p != path)
    save_file(load_file(path) | load_file(other), other, {"format": "pt"})
    with pytest.raises(DocumentError, match="both"):
        load_pretrained(BertModel, folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DocumentError, match="a pipe"):
        check_model_folder(tmp_path)
    with pytest.raises(DocumentError, match="a pipe"):
        load_vision_language_model(str(tmp_path), "cpu")


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": 3}', '{"model_type": []}', "0", ""])
def test_a_configuration_that_is_none_is_an_error_of_ours(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="cannot load the model"):
        load_vision_language_model(str(tmp_path), "cpu")


def test_a_name_of_the_hub_is_not_looked_at():
    check_model_folder("someone/some-model")
