import pytest
import torch
from tests.chip.decoding.language_models import CACHE, MODELS, WORDS, llama, texts, transformers
from torch import nn

from photomask.chip.decoding import CachedModel
from photomask.errors import CaptureError, DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", MODELS)
def test_chunks_give_the_logits_of_the_model(name: str):
    model = MODELS[name]()
    step, tokens = CachedModel(model, positions=CACHE), torch.from_numpy(texts(2, 9))
    with torch.no_grad():
        expected = model(tokens).logits
        first, *new = step(*step.first_chunk(tokens[:, :6], CACHE))
        _, positions, _, *cached = step.first_chunk(tokens[:, 6:], CACHE)
        for empty, keys in zip(cached, new, strict=True):
            empty[:, :, :6] = keys
        mask = torch.zeros(2, 1, 3, CACHE + 3, dtype=torch.int64)
        mask[..., :6], mask[..., CACHE:] = 1, torch.ones(3, 3).tril()
        second, *_ = step(tokens[:, 6:], positions + 6, mask, *cached)
    torch.testing.assert_close(torch.cat([first, second], dim=1), expected)


def test_states_are_the_cached_keys_and_values():
    assert CachedModel(llama(), positions=CACHE).states == {f"cached_{i}": i + 1 for i in range(4)}


@pytest.mark.parametrize("positions", [0, 33])
def test_positions_that_the_model_has_not_are_refused(positions: int):
    with pytest.raises(UsageError, match="1 to 32, which the model has"):
        CachedModel(llama(max_position_embeddings=32), positions=positions)


def test_a_window_that_is_shorter_than_the_text_is_refused():
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        sliding_window=8,
    )
    with pytest.raises(UsageError, match="attend only to the last 8"):
        CachedModel(transformers.MistralForCausalLM(config), positions=CACHE)


def test_a_model_without_a_cache_is_refused():
    with pytest.raises(CaptureError, match="does not run with a cache"):
        CachedModel(nn.Linear(2, 2), positions=CACHE)


def test_inputs_that_do_not_fit_are_refused():
    step = CachedModel(llama(), positions=CACHE)
    for tokens in (torch.zeros(1, CACHE + 1, dtype=torch.int64), torch.zeros(1, 3)):
        with pytest.raises(DataError, match=f"1 to {CACHE}"):
            step.first_chunk(tokens, CACHE)
    with pytest.raises(UsageError, match="cache_length must be 1 to 16, found 17"):
        step.first_chunk(torch.zeros(1, 2, dtype=torch.int64), CACHE + 1)
