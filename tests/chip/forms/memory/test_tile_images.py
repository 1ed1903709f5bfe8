import numpy as np
import pytest
from tests.chip.cost.tiling_cases import machine, program_of
from tests.chip.operators.operator_cases import Source, convolution, linear
from tests.chip.programs import small_program

from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.tiling import tile
from photomask.chip.forms.memory import Encoding
from photomask.chip.forms.memory.element_order import tensor_order
from photomask.chip.forms.memory.image import decode
from photomask.chip.forms.memory.tile_images import check_tile_images, tile_images, weight_blocks
from photomask.chip.operators.weights import effective_weight
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram
from photomask.chip.target import PRESETS as TARGETS
from photomask.errors import DataError, DocumentError, UsageError

SMALL = machine(2, 2, 24, 400, 400)
"""Its weight buffer holds a few weights at a time."""


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("target", ["asic", "tflite"])
def test_images_of_the_tiles_make_up_the_weight(target: str, encoding: Encoding):
    program, _ = small_program(TARGETS[target])
    for name, tiling in tile(program, SMALL).items():
        images = tile_images(program, tiling, encoding)
        assert len(images) > 1
        check_tile_images(program, tiling, images, encoding)
        step = next(step for step in program.steps if step.name == name)
        weight = program.tensors[step.tensors["weight"]]
        packing = Packing.of(program.formats[step.tensors["weight"]], program.target)
        order = tensor_order(program, step, "weight")
        found = np.full(weight.shape, 1 << 40)
        for block, data in images.items():
            part = found[block.slices]
            assert (part == 1 << 40).all()
            values = decode(data, block.shape, order, packing, encoding).values
            part[...] = order.restore(values, block.shape)
        assert np.array_equal(found, weight)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("make", [convolution, linear])
def test_weights_of_any_layer_are_cut_and_read_back(make, seed: int):
    program = program_of(make(Source(seed)))
    tiling = tile(program, machine(2, 2, 24 + seed, 100, 200))["step"]
    images = tile_images(program, tiling)
    check_tile_images(program, tiling, images, Encoding.HEX)
    weight = effective_weight(program.parameters(program.steps[0]))
    loaded = [data for block, data in images.items() if weight[block.slices].any()]
    words = sum(data.count(b"\n") - 1 for data in loaded)  # tiles of zeros are not loaded
    copies = tiling.groups * tiling.whole.channels_out // len(program.tensors["step.weight"])
    loads = copies * words * program.target.memory_word_bits // 8
    assert tiling.weight_bytes % loads == 0 if loads else tiling.weight_bytes == 0


def test_the_files_say_what_they_hold():
    program, _ = small_program()
    tiling = tile(program, SMALL)["layer1.conv"]
    images = tile_images(program, tiling)
    block = next(iter(images))
    assert images[block].startswith(b"// layer1.conv o0-1_i0-1_k0-0x0-0\n")
    assert block == weight_blocks(program, tiling)[0]


def first_image(program: IntegerProgram):
    tiling = tile(program, PRESETS["reference"])["layer1.conv"]
    images = tile_images(program, tiling)
    return tiling, images, next(iter(images))


def test_a_wrong_weight_is_found():
    program, _ = small_program()
    tiling, images, block = first_image(program)
    lines = images[block].splitlines()
    lines[2] = f"{int(lines[2], 16) ^ (1 << 9):08x}".encode()
    with pytest.raises(DataError, match=r"'layer1.conv', tile o0-3_i0-1_k0-2x0-2: element 5 in"):
        check_tile_images(program, tiling, {block: b"\n".join(lines)}, Encoding.HEX)


def test_an_image_that_is_short_missing_or_unknown_is_refused():
    program, _ = small_program()
    tiling, images, block = first_image(program)
    short = images[block].rsplit(b"\n", 2)[0]
    with pytest.raises(DocumentError, match="holds 17 entries, expected 18"):
        check_tile_images(program, tiling, {block: short}, Encoding.HEX)
    with pytest.raises(DataError, match="the image is missing"):
        check_tile_images(program, tiling, {}, Encoding.HEX)
    unknown = images[block].rsplit(b"\n", 2)[0] + b"\nxxxxxxxx\n"
    with pytest.raises(DataError, match="unknown digits"):
        check_tile_images(program, tiling, {block: unknown}, Encoding.HEX)


def test_a_step_without_weights_has_no_images():
    program, _ = small_program()
    tiling = tile(program, PRESETS["reference"])["layer1.conv"]
    other = tiling.model_copy(update={"step": "pool"})
    with pytest.raises(UsageError, match="'pool' is not a step of the program with constant"):
        tile_images(program, other)
