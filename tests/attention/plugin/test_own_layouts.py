"""A layout of the user's own says what embeddings are, and is checked against all that comes."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.attention.caches import cache_of, holding
from tests.attention.plugin.handlers import LAYERS, LiteralHandler
from tests.attention.tiny_models import FAMILY_NAMES, PAD, tiny_inputs, tiny_model
from torch import Tensor

from photomask.attention.families import layout_of
from photomask.attention.layout import PromptLayout
from photomask.attention.plugin import attach, prompt_layout
from photomask.errors import LayoutError, PlanError, UsageError

PROMPT = [3, "image", 2, "image", "image", 4]
GENERATE = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": PAD}
GENERATE |= {"suppress_tokens": [60, 61, 62, 63]}


def attached(family: str = "internvl") -> Any:
    return attach(tiny_model(family), LiteralHandler())


class Embedded:
    """Prompts as a model takes them, and as the embeddings that its text tower gets of them."""

    def __init__(self, family: str, prompts: list[Any], padding: str = "left"):
        model = tiny_model(family)
        self.inputs = tiny_inputs(family, prompts, padding)
        self.layout = layout_of(model.config, **self.inputs)
        self.mask = self.inputs["attention_mask"]
        taken: dict[str, Any] = {}

        def take(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            taken.update(kwargs)

        hook = model.model.language_model.register_forward_pre_hook(take, with_kwargs=True)
        with torch.no_grad():
            model(**self.inputs)
        hook.remove()
        self.embeddings: Tensor = taken["inputs_embeds"]
        self.tower = {name: taken[name] for name in ("inputs_embeds", "position_ids")}
        self.tower |= {"attention_mask": self.mask}
        self.tower |= {
            name: taken[name]
            for name in ("visual_pos_masks", "deepstack_visual_embeds")
            if name in taken
        }
        self.by_embeddings = {"inputs_embeds": self.embeddings, "attention_mask": self.mask}


@torch.no_grad()
def hidden(model: Any, embedded: Embedded) -> Tensor:
    """Returns what the text tower computes of its own inputs, without padding."""
    found = model.model.language_model(**embedded.tower).last_hidden_state
    return found[embedded.mask.bool()]


@torch.no_grad()
def logits(model: Any, arguments: dict[str, Any]) -> Tensor:
    return model(**arguments).logits


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_text_tower_by_itself_computes_what_the_model_computes(family: str, padding: str):
    if family == "gemma3":
        pytest.skip("Gemma makes the masks of both directions outside its tower")
    model, embedded = attached(family), Embedded(family, [PROMPT, [2, "image", 3]], padding)
    with torch.no_grad():
        output = model(**embedded.inputs, output_hidden_states=True)
    expected = output.hidden_states[-1][embedded.mask.bool()]
    with prompt_layout(model, embedded.layout):
        found = hidden(model, embedded)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["internvl", "llava_onevision"])
def test_embeddings_of_a_layout_give_what_their_token_ids_give(family: str):
    model, embedded = attached(family), Embedded(family, [PROMPT, [2, "image", 3]])
    expected = logits(model, embedded.inputs)
    with prompt_layout(model, embedded.layout):
        for inside in (model, model.model):
            with torch.no_grad():
                found = inside(**embedded.by_embeddings)
            if inside is model.model:
                found = model.lm_head(found.last_hidden_state)
            else:
                found = found.logits
            real = embedded.mask.bool()
            torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)


def test_gemma_sees_in_both_directions_by_its_token_types():
    model, embedded = attached("gemma3"), Embedded("gemma3", [PROMPT])
    expected = logits(model, embedded.inputs)
    types = {"token_type_ids": embedded.inputs["token_type_ids"]}
    with prompt_layout(model, embedded.layout):
        found = logits(model, {**embedded.by_embeddings, **types})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_prompt_may_come_in_chunks_of_embeddings():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    expected = logits(model, embedded.inputs)
    for cuts in ([0, 5, 9], [0, 1, 2, 3, 4, 5]):
        cache, found = None, []
        with prompt_layout(model, embedded.layout), torch.no_grad():
            for start, stop in zip(cuts, [*cuts[1:], embedded.layout.tokens], strict=True):
                part = {"inputs_embeds": embedded.embeddings[:, start:stop]}
                part["attention_mask"] = embedded.mask[:, :stop]
                output = model(**part, **holding(cache), use_cache=True)
                cache = cache_of(output)
                found.append(output.logits)
        torch.testing.assert_close(torch.cat(found, 1), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_generate_takes_embeddings(family: str, how: dict[str, Any]):
    embedded, original = Embedded(family, [PROMPT, [2, "image", 3]]), tiny_model(family)
    given = dict(embedded.by_embeddings)
    if family == "qwen2_5_vl":
        given["position_ids"] = embedded.tower["position_ids"]
    by_ids, by_embeddings = (
        original.generate(**inputs, **GENERATE, **how) for inputs in (embedded.inputs, given)
    )
    if not torch.equal(by_ids[:, embedded.layout.tokens :], by_embeddings):
        pytest.skip("transformers itself answers ids and embeddings differently here")
    handler = LiteralHandler()
    model = attach(original, handler)
    ids = model.generate(**embedded.inputs, **GENERATE, **how)
    expected = ids[:, embedded.layout.tokens :]
    handler.calls.clear()
    with prompt_layout(model, embedded.layout):
        found = model.generate(**given, **GENERATE, **how)
    assert torch.equal(found, expected)
    assert len(handler.calls) == LAYERS  # nothing but the prefill


def test_decoding_by_embeddings_is_text():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    token = torch.tensor([[7]])
    with torch.no_grad():
        cache = cache_of(model(**embedded.inputs))
        expected = model(input_ids=token, **holding(cache)).logits
        with prompt_layout(model, embedded.layout):
            cache = cache_of(model(**embedded.by_embeddings))
            one = model.get_input_embeddings()(token)
            found = model(inputs_embeds=one, **holding(cache)).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            with pytest.raises(LayoutError, match="all in the cache"):
                model(inputs_embeds=one.expand(1, 2, -1), **holding(cache))
        with pytest.raises(LayoutError, match="with prompt_layout"):
            model(inputs_embeds=one, **holding(cache))


def test_a_turn_with_token_ids_follows_a_prompt_of_embeddings():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    second = tiny_inputs("internvl", [[1, "image", 4]], seed=1)
    ids = torch.cat([embedded.inputs["input_ids"], second["input_ids"]], 1)
    pixels = torch.cat([embedded.inputs["pixel_values"], second["pixel_values"]])
    expected = logits(model, {"input_ids": ids, "pixel_values": pixels})
    turn = {"input_ids": second["input_ids"], "pixel_values": second["pixel_values"]}
    with torch.no_grad():
        with prompt_layout(model, embedded.layout):
            cache = cache_of(model(**embedded.by_embeddings))
        found = model(**turn, **holding(cache)).logits  # the context may be left by then
    torch.testing.assert_close(found, expected[:, -found.shape[1] :], atol=2e-5, rtol=2e-5)


def test_layout_and_token_ids_must_agree():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    expected = logits(model, embedded.inputs)
    text = PromptLayout.of_spans(embedded.layout.tokens, [], delimited=True)
    with prompt_layout(model, embedded.layout):
        assert torch.equal(logits(model, embedded.inputs), expected)
        with torch.no_grad(), pytest.raises(LayoutError, match=r"position 3.*say text"):
            model.model(input_ids=torch.full_like(embedded.inputs["input_ids"], 7))
        ids = torch.full_like(embedded.inputs["input_ids"], 7)
        with pytest.raises(LayoutError, match=r"position 3.*start of image 0.*say text"):
            logits(model, {"input_ids": ids})
    with prompt_layout(model, text), pytest.raises(LayoutError, match=r"position 3.*says text"):
        logits(model, embedded.inputs)


def test_gaps_in_the_positions_need_a_mask():
    """Pruned tokens keep their positions, and transformers takes gaps for packed prompts."""
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    kept = torch.ones_like(embedded.layout.kind, dtype=torch.bool)
    kept[0, 5] = False
    given: dict[str, Any] = {"inputs_embeds": embedded.embeddings[kept][None], "use_cache": False}
    given["position_ids"] = embedded.layout.positions.long()[kept[0]][None]
    with prompt_layout(model, embedded.layout.keep(kept)):
        with pytest.raises(PlanError, match="Packed prompts"):
            logits(model, given)
        found = logits(model, {**given, "attention_mask": torch.ones(1, int(kept.sum()))})
        cached = logits(model, {**given, "use_cache": True})
    assert torch.equal(found, cached)


def test_a_cache_that_holds_other_tokens_is_refused():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    later = {"inputs_embeds": embedded.embeddings[:, 4:]}
    with torch.no_grad(), prompt_layout(model, embedded.layout):
        head = {"inputs_embeds": embedded.embeddings[:, :4]}
        foreign = cache_of(tiny_model("internvl")(**head, use_cache=True))
        with pytest.raises(LayoutError, match="did not see"):
            model(**later, **holding(foreign))
    with torch.no_grad():
        text = cache_of(model(input_ids=torch.tensor([[7, 7, 7, 7]])))
        with prompt_layout(model, embedded.layout), pytest.raises(LayoutError, match="position 3"):
            model(**later, **holding(text))


def shorter(layout: PromptLayout) -> PromptLayout:
    return PromptLayout.of(layout.kind[:, :-1], layout.image[:, :-1])


def longer(layout: PromptLayout) -> PromptLayout:
    return PromptLayout.stack(
        [layout, PromptLayout.of_spans(layout.tokens + 1, [], delimited=True)]
    )


def padded(layout: PromptLayout) -> PromptLayout:
    kind = layout.kind.clone()
    kind[:, 0] = 0
    return PromptLayout.of(kind, layout.image)


def twice(layout: PromptLayout) -> PromptLayout:
    return PromptLayout.stack([layout, layout])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorter, "brings the tokens from 0 to"),
        (longer, "has 2 prompts"),
        (padded, "position 0: the given layout says padding"),
        (twice, "has 2 prompts, but this forward brings 1"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    change: Callable[[PromptLayout], PromptLayout], message: str
):
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    with prompt_layout(model, change(embedded.layout)):
        for inside in (model, model.model, model.model.language_model):
            with torch.no_grad(), pytest.raises(LayoutError, match=message):
                inside(inputs_embeds=embedded.embeddings)
    with torch.no_grad(), pytest.raises(LayoutError, match="with prompt_layout"):
        model(inputs_embeds=embedded.embeddings)


def test_padding_that_the_mask_hides_must_be_padding_of_the_layout():
    model, embedded = attached(), Embedded("internvl", [PROMPT, [2, "image", 3]])
    with prompt_layout(model, embedded.layout):
        with pytest.raises(LayoutError, match=r"prompt 1, position 0.*says padding"):
            logits(model, {"inputs_embeds": embedded.embeddings})
        other = {**embedded.by_embeddings, "attention_mask": embedded.mask.flip(1)}
        with pytest.raises(LayoutError, match="prompt 1, position 0"):
            logits(model, other)


def test_rows_that_are_no_copies_of_a_prompt_are_refused():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    two = embedded.embeddings.repeat(2, 1, 1)
    with prompt_layout(model, embedded.layout):
        found = logits(model, {"inputs_embeds": two})
        assert torch.equal(found[0], found[1])
        two[1, 5, 0] += 1
        with pytest.raises(LayoutError, match="which are no copies"):
            logits(model, {"inputs_embeds": two})


def test_contexts_nest_and_belong_to_their_model():
    one, other = attached(), attached()
    a, b = Embedded("internvl", [PROMPT]), Embedded("internvl", [[2, "image", 3]])
    context = prompt_layout(one, a.layout)
    with context, prompt_layout(other, b.layout):
        logits(one, a.by_embeddings)
        logits(other, b.by_embeddings)
        with prompt_layout(one, b.layout), context:  # entered again
            logits(one, a.by_embeddings)
        with prompt_layout(one, b.layout):
            logits(one, b.by_embeddings)
            with pytest.raises(LayoutError, match="the layout has"):
                logits(one, a.by_embeddings)
        logits(one, a.by_embeddings)
        with pytest.raises(LayoutError, match="with prompt_layout"):
            logits(copy.deepcopy(one), a.by_embeddings)  # a copy is another model
    for model in (one, other):
        with pytest.raises(LayoutError, match="with prompt_layout"):
            logits(model, a.by_embeddings)
    prompt_layout(one, a.layout)  # a context that nobody enters says nothing
    with pytest.raises(LayoutError, match="with prompt_layout"):
        logits(one, a.by_embeddings)


def test_the_parts_of_a_copied_model_belong_to_the_copy():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    other = copy.deepcopy(model)
    with prompt_layout(other, embedded.layout):
        hidden(other, embedded)
        with pytest.raises(UsageError, match="outside a forward"):
            hidden(model, embedded)


def test_a_context_that_is_left_in_another_thread_ends_nothing():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    context = prompt_layout(model, embedded.layout)
    with context:
        thread = threading.Thread(target=context.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        logits(model, embedded.by_embeddings)
    with pytest.raises(LayoutError, match="with prompt_layout"):
        logits(model, embedded.by_embeddings)


def test_an_error_inside_ends_the_context():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    with pytest.raises(KeyError), prompt_layout(model, embedded.layout):
        raise KeyError
    with pytest.raises(LayoutError, match="with prompt_layout"):
        logits(model, embedded.by_embeddings)

    def fail(*_: object) -> Tensor:
        raise KeyError

    failing = attach(tiny_model("internvl"), fail)
    with prompt_layout(failing, embedded.layout), pytest.raises(KeyError):
        hidden(failing, embedded)
    with pytest.raises(UsageError, match="outside a forward"):
        hidden(failing, embedded)


def test_threads_have_contexts_of_their_own():
    model, many = attached(), [Embedded("internvl", [[3, "image", size]]) for size in (2, 3, 4)]
    expected = [logits(model, each.inputs) for each in many]
    found: list[Any] = [None] * len(many)
    context = prompt_layout(model, many[0].layout)

    def run(place: int) -> None:
        mine = context if place == 0 else prompt_layout(model, many[place].layout)
        with mine:
            for _ in range(3):
                found[place] = logits(model, many[place].by_embeddings)

    def run_without() -> None:
        try:
            logits(model, many[0].by_embeddings)
        except LayoutError as error:
            found.append(error)

    with context:
        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(many))]
        threads.append(threading.Thread(target=run_without))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert isinstance(found.pop(), LayoutError)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_what_needs_no_layout_is_refused():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    for other in (tiny_model("internvl"), model.model, "a model"):
        with pytest.raises(UsageError, match="never converted"):
            prompt_layout(other, embedded.layout)
    with pytest.raises(UsageError, match="must be a PromptLayout, got dict"):
        prompt_layout(model, {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(LayoutError, match="cut off"):
        prompt_layout(model, embedded.layout.tail(4))


def test_parts_without_a_layout_are_refused_as_before():
    model, embedded = attached(), Embedded("internvl", [PROMPT])
    with pytest.raises(UsageError, match="unless prompt_layout says"):
        hidden(model, embedded)


@pytest.mark.gpu
def test_a_layout_may_lie_on_another_device():
    model = attach(copy.deepcopy(tiny_model("internvl")).cuda(), LiteralHandler())
    embedded = Embedded("internvl", [PROMPT])
    with prompt_layout(model, embedded.layout):
        logits(model, {name: each.cuda() for name, each in embedded.by_embeddings.items()})
