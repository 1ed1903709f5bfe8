"""The RTL skips zeros and takes compressed weights, and computes the oracle's integers."""

import itertools

import numpy as np
import pytest
from tests.chip.forms.rtl.rtl_programs import NARROW, every_operator, machine
from tests.chip.forms.rtl.simulated import run
from tests.chip.forms.rtl.sparse_programs import SparseProgram, tile_sparse, two_of_four

from photomask.chip import export
from photomask.chip.forms.rtl.descriptors import Operation
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.lowering import lower
from photomask.chip.forms.rtl.read_back import wrong_weights
from photomask.chip.operators.weights import effective_weight
from photomask.chip.sparsity import NofM
from photomask.errors import TargetError


def occupied_tiles(weight: np.ndarray, groups: int, rows: int, columns: int) -> list[int]:
    """Counts the tiles with a weight that is not zero, for each block of outputs."""
    outputs, inputs = weight.shape[:2]
    kernel = int(np.prod(weight.shape[2:]))
    whole = np.zeros((outputs, inputs * groups, kernel), dtype=np.int64)
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        whole[output, first : first + inputs] = weight[output].reshape(inputs, kernel)
    return [
        sum(
            bool(whole[o : o + columns, i : i + rows, k].any())
            for i in range(0, inputs * groups, rows)
            for k in range(kernel)
        )
        for o in range(0, outputs, columns)
    ]


@pytest.mark.parametrize(("seed", "kept"), [(0, 0.5), (1, 0.2), (2, 0.1), (3, 0.0)])
def test_tiles_of_zeros_are_skipped_and_every_integer_is_right(seed, kept, build_once, tmp_path):
    program, codes = tile_sparse(seed, kept)
    report = run(program, codes, tmp_path / "rtl", NARROW, build_once(NARROW))
    layers = {layer.step: layer for layer in report.layers}
    loaded = 0
    for step in program.steps:
        if "weight" not in step.tensors:
            continue
        weight = effective_weight(program.parameters(step))
        tiles = occupied_tiles(weight, getattr(step.operator, "groups", 1), 4, 4)
        positions = int(np.prod(program.edges[step.output].shape[2:]))
        # Biases alone need no weights, unless the array has never held any.
        loads = sum(n or (not loaded and not sum(tiles[:block])) for block, n in enumerate(tiles))
        loaded += sum(tiles)
        passes = sum(max(1, n) for n in tiles)
        assert layers[step.name].passes == passes
        assert layers[step.name].rtl_cycles == 4 * loads + passes * (positions + 4 + 4 + 6)
    assert len(lower(program, NARROW).images.weights) == max(4 * loaded, 1)


def test_outputs_without_weights_are_their_biases():
    program, _ = tile_sparse(3, 0.0)
    products = [d for d in lower(program, NARROW).descriptors if d.operation is Operation.MATRIX]
    assert len(products) == 3 + 2 + 2 + 3
    assert not any(d.start_from_memory or d.input_height or d.padding_value for d in products)
    # Nothing was loaded before, so the registers of the array are unknown until the first pass.
    assert [d.keep_weights for d in products] == [0] * len(products)


TWO_OF_FOUR = machine(4, 4, sparse=NofM(kept=2, group=4))


def test_every_operator_is_exact_on_a_sparse_array(build_once, tmp_path):
    program, codes = every_operator()
    run(program, codes, tmp_path / "rtl", TWO_OF_FOUR, build_once(TWO_OF_FOUR))


def fewest_passes(weight: np.ndarray, groups: int) -> int:
    """Counts the passes of a layer on an array of 4 × 4 for 2:4, or dense ones if not more."""
    outputs, inputs = weight.shape[:2]
    kernel = int(np.prod(weight.shape[2:]))
    whole = np.zeros((outputs, -(-inputs * groups // 8) * 8, kernel), dtype=np.int64)
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        whole[output, first : first + inputs] = weight[output].reshape(inputs, kernel)
    total = 0
    for o in range(0, outputs, 4):
        block, passes = whole[o : o + 4], 0
        for k in range(kernel):
            dense = sum(bool(block[:, i : i + 4, k].any()) for i in range(0, whole.shape[1], 4))
            sparse = 0
            for i in range(0, whole.shape[1], 8):
                used = block[:, i : i + 8, k].reshape(-1, 4) != 0
                sparse += -(-int(used.sum(axis=1).max()) // 2)
            passes += min(dense, sparse)
        total += max(1, passes)
    return total


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_of_two_in_four_take_fewer_passes(seed: int, build_once, tmp_path):
    program, codes = two_of_four(seed)
    report = run(program, codes, tmp_path / "rtl", TWO_OF_FOUR, build_once(TWO_OF_FOUR))
    layers = {layer.step: layer for layer in report.layers}
    for step in program.steps:
        if "weight" in step.tensors:
            weight = effective_weight(program.parameters(step))
            passes = fewest_passes(weight, getattr(step.operator, "groups", 1))
            assert layers[step.name].passes == passes, step.name
    # 12 inputs in two compressed tiles or three dense ones, three blocks of outputs, nine taps.
    assert layers["kept"].passes == 2 * 3 * 9
    # Two groups of N rows load and drain, where a dense array has four rows.
    assert layers["kept"].rtl_cycles == 2 * 3 * 9 * (20 + 2 * 2 + 4 + 6)


def test_weights_are_read_back_from_the_weight_memory(tmp_path):
    cases = itertools.product((NARROW, TWO_OF_FOUR), (two_of_four(0), tile_sparse(0, 0.3)))
    for number, (design, (program, codes)) in enumerate(cases):
        folder = tmp_path / str(number)
        export(program, folder, codes, form=RtlForm(accelerator=design))
        lowered = lower(program, design)
        assert wrong_weights(lowered, folder) == []
        path = folder / "program" / "weights.hex"
        lines = path.read_text().splitlines()
        lines[0] = f"{int(lines[0], 16) ^ 1:0{len(lines[0])}x}"
        path.write_text("\n".join(lines) + "\n")
        (problem,) = wrong_weights(lowered, folder)
        assert problem.startswith(f"step {program.steps[0].name!r}: 1 weights in weights.hex")


def test_a_word_of_compressed_weights_holds_values_and_patterns(tmp_path):
    make = SparseProgram()
    weight = np.zeros((4, 8, 1, 1), dtype=np.int64)
    weight[:, 0] = 1  # every column needs input 0, so that dense tiles would take two passes
    weight[1, 0], weight[1, [1, 3]] = 0, [[[5]], [[-3]]]
    weight[:, 4] = 2
    x = make.input("x", (1, 8, 1, 1))
    program = make.build(make.layer("layer", x, weight, padding=((0, 0), (0, 0))))
    export(program, tmp_path / "rtl", make.codes(1)["x"], form=RtlForm(accelerator=TWO_OF_FOUR))
    last, first = (tmp_path / "rtl" / "program" / "weights.hex").read_text().splitlines()
    # Three bits for each of four columns, then two weights of eight bits for each column. Column 1
    # has the positions 1 and 3: C(1, 1) + C(3, 2) = 4.
    assert first == f"{0b000_000_100_000:x}".zfill(3) + "0001" + "0001" + "fd05" + "0001"
    assert last == "000" + "0002" * 4
    text = (tmp_path / "rtl" / "README.md").read_text()
    assert "one word of 76 bits" in text
    assert "`KEPT` | 2 |" in text


def test_documents_of_dense_designs_do_not_name_a_pattern(tmp_path):
    program, codes = tile_sparse(0, 0.5)
    dense = export(program, tmp_path / "dense", codes, form=RtlForm(accelerator=NARROW))
    sparse = export(program, tmp_path / "sparse", codes, form=RtlForm(accelerator=TWO_OF_FOUR))
    assert "kept" not in dense.render() + (tmp_path / "dense" / "Makefile").read_text()
    assert "-GKEPT=2 -GGROUP=4" in (tmp_path / "sparse" / "Makefile").read_text()
    assert RtlDesign.load(tmp_path / "sparse").parameters == sparse.parameters
    assert not dense.parameters.hold(sparse.parameters)
    assert not sparse.parameters.hold(dense.parameters)


@pytest.mark.parametrize(
    ("pattern", "rows", "message"),
    [
        (NofM(kept=3, group=4), 4, "must be a multiple of N, which is 3"),
        (NofM(kept=4, group=4), 4, "is dense"),
        (NofM(kept=1, group=512), 1, "512 inputs.*at most 256 lanes"),
        (NofM(kept=16, group=32), 16, "30 bits for each pattern.*at most 16"),
    ],
)
def test_patterns_that_the_design_cannot_have_are_refused(pattern, rows, message):
    design = machine(rows, 4).model_copy(update={"sparse": pattern})
    with pytest.raises(TargetError, match=message):
        RtlForm(accelerator=design)
