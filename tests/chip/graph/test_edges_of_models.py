"""What models have at their edges: reserved names, masks, empty parts, dead code, odd dtypes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip import PreparedModel, TorchEngine, calibrate, convert, prepare, verify
from photomask.chip.graph import capture
from photomask.chip.graph.module_keys import module_key, node_name
from photomask.errors import CaptureError, DataError, UsageError

SEQUENCE = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(0))
CAUSAL = torch.full((5, 5), float("-inf")).triu(1)


class Model(nn.Module):
    """A forward of `(model, x)`, with modules, parameters and buffers by name."""

    def __init__(self, function: Callable, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x):
        return self.function(self, x)


def ratio_db(model: nn.Module, x: Tensor) -> float:
    """Returns the signal-to-noise ratio of a program of 8 bits beside its float model."""
    prepared = prepare(model, "w8a8-minmax", x[:1])
    calibrate(prepared, x)
    program = convert(prepared, "asic")
    (name,) = program.outputs
    found = program.edges[name].dequantize(
        TorchEngine(program).run(program.quantize_input(x))[name]
    )
    with torch.no_grad():
        wanted = model(x)
    return float(10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum()))


@pytest.mark.parametrize("name", ["keys", "items", "popitem", "a/b", "a%b", "%2F", "update", "ü"])
def test_modules_may_have_the_names_of_a_containers_attributes(name: str):
    model = nn.Sequential()
    model._modules[name] = nn.Linear(6, 4)
    prepared = prepare(model.eval(), "w8a8", torch.randn(2, 6))
    assert node_name(module_key(name)) == name
    assert prepared.weight_quantizer(name) is not None


def test_different_names_have_different_keys():
    names = ["a.b", "a/b", "a%2Fb", "keys", "keys/", "key", "values", "%"]
    keys = [module_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert [node_name(key) for key in keys] == [*names[:4], "keys/", *names[5:]]
    assert not any("." in key or hasattr(nn.ModuleDict(), key) for key in keys)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("lowest", [float("-inf"), -1e9, torch.finfo(torch.float32).min])
def test_a_mask_means_the_same_however_it_is_saved(persistent: bool, lowest: float):
    model = nn.MultiheadAttention(16, 2, batch_first=True)
    model.register_buffer("mask", CAUSAL.clamp(min=lowest), persistent=persistent)
    whole = Model(lambda m, x: m.inner(x, x, x, attn_mask=m.inner.mask)[0], inner=model).eval()
    assert ratio_db(whole, SEQUENCE) > 25


def test_infinity_that_is_no_mask_is_refused_by_name():
    layer = nn.Linear(6, 4)
    layer.weight.data[1, 2] = float("-inf")
    with pytest.raises(DataError, match=r"1 of 24 values of the weight of 'linear'.*'weight'"):
        capture(layer, torch.randn(2, 6))
    layer.weight.data[1, 2] = float("inf")
    with pytest.raises(DataError, match="'weight' are NaN or infinite"):
        capture(layer, torch.randn(2, 6))


EMPTY = {
    "behind": lambda m, x: torch.cat([x[..., :16] * 2, x[..., 16:] * 3], -1),
    "in front": lambda m, x: torch.cat([x[:, :0], x * 2], 1),
    "constant": lambda m, x: torch.cat([x.new_zeros(x.shape[0], 0, 16), x * 2], 1),
    "split": lambda m, x: torch.cat(x.split([10, 0, 6], -1)[::-1], -1) * 2,
    "reshaped": lambda m, x: torch.cat([x[:, 5:].reshape(x.shape[0], 0, 16), x * 2], 1),
    "sequence first": lambda m, x: torch.cat(
        [x.transpose(0, 1)[:0], x.transpose(0, 1) * 2], 0
    ).transpose(0, 1),
    "batch": lambda m, x: torch.cat([x[:0], x * 2], 0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_parts_without_elements_are_left_out(name: str):
    assert ratio_db(Model(EMPTY[name]).eval(), SEQUENCE) > 35


def test_results_and_examples_without_elements_are_refused():
    with pytest.raises(CaptureError, match="result 1 of the model has no elements"):
        capture(Model(lambda m, x: (x * 2, x[:, 5:])), SEQUENCE)
    with pytest.raises(DataError, match="must be real of shape"):
        capture(Model(lambda m, x: x), torch.zeros(4, 0))


def test_what_no_result_reads_needs_no_integer_form():
    def function(model, x):
        model.auxiliary(x)
        x.sort(1)
        x.argmax(1).float().floor()
        torch.rand_like(x)
        return x.max(2).values * 2

    model = Model(function, auxiliary=nn.LSTM(16, 4, batch_first=True)).eval()
    graph = capture(model, SEQUENCE)
    assert not graph.constants
    assert {node.operation.kind for node in graph.nodes} <= {
        "input",
        "reshape",
        "max_pool",
        "mul_scalar",
    }


class WithInputs(nn.Module):
    """Three inputs, of which two have a default."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.layer = nn.Linear(16, 16)

    def forward(self, x, y=None, z=None):
        return self.function(self, x, y, z)


UNREAD = {
    "never named": (lambda m, x, y, z: x * 2 + z, "'y'"),
    "its shape alone": (lambda m, x, y, z: x + torch.zeros_like(y) * 3 + z, "'y'"),
    "what nothing reads": (lambda m, x, y, z: (m.layer(y), x + 1)[1], "'y', 'z'"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_inputs_that_no_result_reads_are_refused_by_name(name: str):
    function, names = UNREAD[name]
    model = WithInputs(function).eval()
    for given in ((SEQUENCE,) * 3, {"z": SEQUENCE, "x": SEQUENCE, "y": SEQUENCE}):
        for entry in (capture, lambda m, x: prepare(m, "w8a8", x)):
            with pytest.raises(CaptureError, match=rf"its input\(s\) {names}: leave them out"):
                entry(model, given)


def test_an_input_with_a_default_may_be_left_out():
    model = WithInputs(lambda m, x, y, z: m.layer(x) + z).eval()
    graph = capture(model, {"z": SEQUENCE, "x": SEQUENCE})
    assert graph.inputs == ("x", "z")
    found = graph(SEQUENCE, SEQUENCE * 2)[0]
    assert torch.allclose(found, model(SEQUENCE, z=SEQUENCE * 2), atol=1e-5)


def test_an_input_that_is_a_result_is_read():
    graph = capture(WithInputs(lambda m, x, y, z: (x + z, y)).eval(), (SEQUENCE,) * 3)
    assert graph.inputs == ("x", "y", "z")


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("queries", [1, 3])
def test_learned_queries_may_ask_for_their_weights(average: bool, queries: int):
    def function(model, x):
        query = model.query.repeat(x.shape[0], 1, 1)
        found, shares = model.inner(query, x, x, average_attn_weights=average)
        return (
            found + shares.flatten(2 if average else 1)[..., :1].reshape(x.shape[0], -1, 1)[:, :1]
        )

    inner = nn.MultiheadAttention(16, 4, batch_first=True)
    query = nn.Parameter(torch.randn(1, queries, 16))
    assert ratio_db(Model(function, inner=inner, query=query).eval(), SEQUENCE) > 25


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_default_dtype_of_a_program_changes_nothing(dtype: torch.dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()).eval()
    x = torch.randn(8, 3, 6, 6)
    expected = ratio_db(model, x)
    torch.set_default_dtype(dtype)
    try:
        assert ratio_db(model, x) == pytest.approx(expected, abs=0.01)
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_dtypes_are_compared_in_float32(dtype: torch.dtype):
    x = torch.randn(8, 6)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).to(dtype)
    prepared = prepare(model, "w8a8", x.to(dtype))
    calibrate(prepared, x.to(dtype))
    report = verify(model, convert(prepared, "asic"), x.to(dtype), multiplier_widths=())
    assert report.engine.mismatches == 0
    assert report.outputs[0].sqnr_db > 25
    assert model[0].weight.dtype is dtype


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match="got function"):
        prepare(lambda x: x, "w8a8", torch.randn(1, 4))  # type: ignore[arg-type]
    with torch.device("meta"):
        layer = nn.Linear(4, 2)
    with pytest.raises(CaptureError, match="meta device"):
        prepare(layer, "w8a8", torch.randn(1, 4))


class Named(nn.Module):
    """As language models are called: inputs by name, one of them unused, labels for a loss."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 4)

    def forward(self, input_ids, token_type_ids=None, attention_mask=None, labels=None):
        x = self.table(input_ids)
        scores = (x @ x.transpose(1, 2)).masked_fill(attention_mask[:, None, :] == 0, -1e9)
        logits = self.head((scores.softmax(-1) @ x).mean(1))
        return {"logits": logits} if labels is None else F.cross_entropy(logits, labels)


def named_batch() -> dict[str, Tensor]:
    mask = torch.ones(8, 6, dtype=torch.int64)
    mask[:, 4:] = 0
    ids, labels = torch.randint(0, 9, (8, 6)), torch.randint(0, 4, (8,))
    return {"labels": labels, "attention_mask": mask, "input_ids": ids}


def test_a_dictionary_calls_the_model_by_name():
    torch.manual_seed(0)
    model, batch = Named().eval(), named_batch()
    prepared = prepare(model, "w8a8", batch)
    assert prepared.graph.inputs == ("input_ids", "attention_mask")
    calibrate(prepared, batch)
    report = verify(model, convert(prepared, "asic"), batch, multiplier_widths=())
    assert report.labelled
    assert report.outputs[0].sqnr_db > 25
    with pytest.raises(DataError, match="'ids', which is no parameter"):
        prepare(model, "w8a8", {"ids": batch["input_ids"]})


def prepared_network() -> tuple[nn.Module, Tensor, Callable[..., PreparedModel]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).eval()
    x = torch.randn(8, 3, 6, 6)

    def make(source: object, example: object) -> PreparedModel:
        prepared = prepare(source, "w8a8", example)  # type: ignore[arg-type]
        calibrate(prepared, x)
        return prepared

    return model, x, make


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("as_module", [True, False])
def test_exported_programs_of_a_fixed_batch_give_the_program_of_their_model(samples, as_module):
    model, x, make = prepared_network()
    exported = torch.export.export(model, (x[:samples],))
    source = exported.module() if as_module else exported
    found, expected = (convert(make(m, x[:1]), "asic") for m in (source, model))
    (name,), (wanted,) = found.outputs, expected.outputs
    codes = found.quantize_input(x)
    assert torch.equal(
        TorchEngine(found).run(codes)[name], TorchEngine(expected).run(codes)[wanted]
    )
    assert verify(source, found, x, multiplier_widths=()).engine.mismatches == 0


def test_labels_of_an_example_are_left_out():
    model, x, make = prepared_network()
    for example in ((x, torch.zeros(8, dtype=torch.int64)), x.numpy(), [(x[:2], [0, 1])]):
        assert make(model, example).graph.inputs == ("input",)
