"""The benchmark of chats: what it compares, and that its sets of prompts have nothing in common."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS, LENGTH = 7, 12


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("chat")


def dialogues(chat: ModuleType) -> list[object]:
    return [
        chat.Dialogue(torch.tensor([1, 2]), torch.tensor([3, 4, 5])),
        chat.Dialogue(torch.tensor([1, 2, 3]), torch.tensor([4, 5])),
    ]


def successor(tokens: Tensor) -> Tensor:
    """Returns logits of a model that chooses the next number."""
    return 5.0 * torch.nn.functional.one_hot((tokens + 1) % WORDS, WORDS)


def test_no_prompt_is_in_two_sets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    prompts = importlib.import_module("chat_prompts")
    sets = (prompts.CALIBRATION, prompts.SELECTION, prompts.TEST)
    assert len(prompts.TEST) == 50
    assert len(set().union(*sets)) == sum(map(len, sets))


def test_a_model_agrees_with_itself(chat: ModuleType):
    found = chat.agree(successor, successor, dialogues(chat), LENGTH)
    assert (found.positions, found.top_1, found.first, found.whole) == (5, 1.0, 1.0, 1.0)
    assert found.divergence == 0.0


def test_the_token_before_the_answer_chooses_its_first_token(chat: ModuleType):
    def other(tokens: Tensor) -> Tensor:
        logits = successor(tokens)
        logits[0, 1] = logits[0, 1].roll(1)  # behind the prompt of the first dialogue
        logits[1, 2 + 2 :] = 0.0  # behind the answer of the second
        return logits

    found = chat.agree(successor, other, dialogues(chat), LENGTH)
    assert (found.top_1, found.first, found.whole) == (0.8, 0.5, 0.5)
    p = torch.tensor([5.0, *(0.0,) * (WORDS - 1)]).double().log_softmax(dim=0)
    expected = float((p.exp() * (p - p.roll(1))).sum()) / 5
    assert found.divergence == pytest.approx(expected)


def test_answers_are_greedy_and_stop_with_the_end(chat: ModuleType):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anything = torch.nn.Parameter(torch.zeros(()))
            self.model = lambda input_ids: SimpleNamespace(last_hidden_state=successor(input_ids))
            self.lm_head = torch.nn.Identity()

    language = SimpleNamespace(
        model=Model(),
        tokenizer=SimpleNamespace(eos_token_id=6),
        prompt=lambda question: torch.tensor([0] * len(question) + [int(question) % WORDS]),
    )
    found = chat.answer(language, ["3", "15"], 4)
    assert [dialogue.answer.tolist() for dialogue in found] == [[4, 5, 6], [2, 3, 4, 5]]
