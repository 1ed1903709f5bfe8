import pytest
import torch
from tests.attention.tiny_models import tiny_model
from tests.attention.tiny_processor import TinyProcessor, tiny_prompt

from photomask.attention import HeadPlan, Pattern, SinkRule, calibrate, convert
from photomask.attention.encoding import encode
from photomask.attention.probing import LayerProbe, logit_change

FAMILY = "qwen2_5_vl"
PROMPTS = [tiny_prompt(9)] + [tiny_prompt(10 + n, 20, 30) for n in range(8)]


def test_a_change_does_not_depend_on_the_sum_of_the_logits():
    z = torch.tensor([1.0, -2.0, 4.0])
    assert logit_change(z, z + 3).item() == pytest.approx(0, abs=1e-12)
    centred = z - z.mean()
    assert logit_change(z, z + 0.1 * centred).item() == pytest.approx(0.01, rel=1e-4)


def test_equal_logits_change_nothing_even_if_all_are_the_same():
    assert logit_change(torch.ones(5), torch.ones(5)).item() == 0


def test_each_layer_is_probed_alone():
    """Against converted models with one sparse layer each."""
    model = tiny_model(FAMILY)
    inputs = encode(TinyProcessor(FAMILY), PROMPTS[1]).inputs
    dense = HeadPlan.uniform(model, Pattern.DENSE)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
        found = LayerProbe(model, SinkRule(), 3).measure(inputs, logits)
        for layer in range(3):
            rows = [[Pattern.DENSE] * 4 for _ in range(3)]
            rows[layer] = [Pattern.SINK] * 4
            alone = convert(model, dense.with_patterns(rows))(**inputs).logits[0, -1]
            assert found[layer].item() == pytest.approx(logit_change(logits, alone).item())


def test_image_rows_of_the_last_layer_change_no_answer():
    statistics = calibrate(tiny_model(FAMILY), TinyProcessor(FAMILY), PROMPTS)
    assert [record.probed for record in statistics.prompts] == [True, *[False] * 5, True, False]
    weights = statistics.sensitivity()
    assert weights[-1] < 1e-9
    assert (weights[:-1] > 1e-4).all()
