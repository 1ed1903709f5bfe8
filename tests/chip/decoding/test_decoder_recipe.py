"""The recipe for language models: what it makes wide, and the same integers in every engine."""

import numpy as np
import pytest
import torch
from tests.chip.decoding.language_models import CACHE, llama, texts

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.decoding import CachedModel, Decoder, prepare_like
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.equalization import smooth, smooth_products
from photomask.chip.program import NumpyEngine
from photomask.chip.weight_rounding import compensate_rounding


def converted(recipe="w8a8-decoder"):
    model = CachedModel(llama(), positions=CACHE)
    data = model.first_chunk(torch.from_numpy(texts(8, 12)), CACHE)
    prepared = prepare(model, load_recipe(recipe), data, states=model.states)
    smooth(prepared, [data], strength=0.65, shift=True)
    smooth_products(prepared, [data])
    calibrate(prepared, [data])
    compensate_rounding(prepared, [data])
    return prepared, data, convert(prepared, load_target("asic"))


@pytest.mark.parametrize(("recipe", "bits"), [("w8a8-decoder", 8), ("w8a10-decoder", 10)])
def test_layers_read_the_bits_of_the_name_but_behind_gated_units(recipe, bits):
    prepared, _, program = converted(recipe)
    read = {
        step.name: program.edges[step.inputs[0]].format.bits
        for step in program.steps
        if step.operator.kind == "linear"
    }
    assert {found for name, found in read.items() if "down_proj" in name} == {16}
    assert {found for name, found in read.items() if "down_proj" not in name} == {bits}
    weights = [
        prepared.weight_quantizer(node.name)
        for node in prepared.graph.nodes
        if "weight" in node.constants
    ]
    assert {quantizer.codes.bits for quantizer in weights} == {8}
    for node in prepared.graph.nodes:
        if node.operation.kind == "normalize":
            assert len(program.edges[node.inputs[0]].scale) == 16


@pytest.mark.parametrize("recipe", ["w8a8-decoder", "w8a10-decoder"])
def test_every_engine_computes_the_same_integers(recipe):
    _, data, program = converted(recipe)
    codes = {
        name: program.quantize_input(x, name).numpy()
        for name, x in zip(program.inputs, data, strict=True)
    }
    expected = dict(NumpyEngine(program).edges(codes))
    tensors = {name: torch.from_numpy(x) for name, x in codes.items()}
    for name, found in TorchEngine(program).edges(tensors):
        np.testing.assert_array_equal(found.numpy(), expected[name], err_msg=name)
    for engine in (CEngine(program, compiler="cc -O1"), OnnxEngine(program)):
        for name, found in engine.run(codes).items():
            np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_chunks_of_any_length_give_the_same_logits():
    prepared, data, program = converted()
    model = CachedModel(llama(), positions=CACHE)
    chunks = [
        convert(
            prepare_like(prepared, model, model.first_chunk(torch.zeros(1, n).long(), CACHE)),
            load_target("asic"),
        )
        for n in (5, 1)
    ]
    tokens = data[0][:2].numpy()
    whole = Decoder(program, engine=NumpyEngine).feed(tokens)
    parts = Decoder(*chunks, engine=NumpyEngine)
    np.testing.assert_array_equal(parts.feed(tokens), whole)
    single = Decoder(chunks[1], engine=NumpyEngine)
    np.testing.assert_array_equal(single.feed(tokens), whole)
    codes = {
        name: program.quantize_input(x[:2], name).numpy()
        for name, x in zip(program.inputs, data, strict=True)
    }
    first = NumpyEngine(program).run(codes)[program.outputs[0]]
    np.testing.assert_array_equal(first, whole)


RARE, COMMON = 49, 7
"""A token that calibration does not see, and one that it does."""


def answering_to_a_rare_token() -> torch.nn.Module:
    """Returns a model with a gated unit that is largest where the rare token stands.

    For the common token it is about half as large.
    """
    model = llama()
    rare, common = (x / x.norm() for x in model.model.embed_tokens.weight[[RARE, COMMON]].detach())
    with torch.no_grad():
        for layer in (model.model.layers[0].mlp.gate_proj, model.model.layers[0].mlp.up_proj):
            layer.weight[0] = 4 * rare + 3 * common
    return model


@pytest.mark.parametrize("recipe", ["w8a8-decoder", "w8a10-decoder"])
def test_gated_products_beyond_those_of_calibration_are_not_clipped(recipe: str):
    model = CachedModel(answering_to_a_rare_token(), positions=CACHE)
    common = torch.from_numpy(texts(8, 12)).remainder(RARE)
    common[0, 0] = COMMON
    data = model.first_chunk(common, CACHE)
    prepared = prepare(model, load_recipe(recipe), data, states=model.states)
    calibrate(prepared, [data])
    rare = common[:1].clone()
    rare[0, 3] = RARE
    name = "model.model.layers.0.mlp.multiply"

    def largest(tokens: torch.Tensor) -> torch.Tensor:
        inputs = model.first_chunk(tokens, CACHE)
        found = {n.name: x for n, x in prepared.graph.run(inputs, prepared.constants_of)}
        return found[name].detach().max()

    beyond = largest(rare)
    assert 1.5 < beyond / largest(common) < 4
    quantizer = prepared.activation_quantizer(name)
    assert abs(float(quantizer(beyond) - beyond)) <= float(quantizer.scale)
