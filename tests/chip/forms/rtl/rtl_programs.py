"""Designs, programs and one build of the RTL that the tests of the reference design share."""

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.chip.programs import ProgramBuilder

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.design import DesignParameters
from photomask.chip.forms.rtl.export import write_sources
from photomask.chip.forms.rtl.lowering import word_lanes
from photomask.chip.forms.rtl.simulation import sources_in
from photomask.chip.forms.rtl.simulator import Simulator, build
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Constant,
    Convolution,
    Embedding,
    Gather,
    Interpolate,
    Linear,
    Lookup,
    Matmul,
    MaxPool,
    Multiply,
    Normalize,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.program import IntegerProgram
from photomask.chip.sparsity import NofM
from photomask.chip.target import Rounding

INT8, UINT8 = IntFormat(bits=8, signed=True), IntFormat(bits=8, signed=False)


def machine(
    rows: int,
    columns: int,
    *,
    weight_bits=8,
    activation_bits=8,
    accumulator_bits=32,
    sparse: NofM | None = None,
):
    return Accelerator(
        name=f"test {rows}x{columns}" + ("" if sparse is None else f" {sparse}".replace(":", "of")),
        rows=rows,
        columns=columns,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        accumulator_bits=accumulator_bits,
        dataflow="weight_stationary",
        weight_buffer_bytes=1024,
        activation_buffer_bytes=1024,
        accumulator_buffer_bytes=1024,
        memory_bytes_per_cycle=8.0,
        clock_mhz=100.0,
        sparse=sparse,
    )


WIDE = machine(4, 8, weight_bits=20, activation_bits=16, accumulator_bits=48)
"""Holds whatever a random program holds."""
NARROW = machine(4, 4)
"""Activations of more than 8 bits lie in its accumulators."""


def parameters(accelerator: Accelerator) -> DesignParameters:
    """Room for any program of the tests."""
    return DesignParameters(
        rows=accelerator.rows,
        columns=accelerator.columns,
        lanes=word_lanes(accelerator),
        weight_bits=accelerator.weight_bits,
        activation_bits=accelerator.activation_bits,
        accumulator_bits=accelerator.accumulator_bits,
        multiplier_bits=31,
        kept=accelerator.kept,
        group=accelerator.group,
        activation_depth=1 << 14,
        accumulator_depth=1 << 14,
        weight_depth=1 << 14,
        parameter_depth=1 << 12,
        table_depth=1 << 18,
        descriptor_depth=1 << 13,
        steps=128,
    )


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test run have in common."""
    base = factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


def built(folder: Path, accelerator: Accelerator, sources: Sequence[Path] = ()) -> Simulator:
    """The design as `accelerator`, built once a folder, also where several processes test."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = parameters(accelerator)
    record = folder / "built.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.is_file():
            if not sources:
                write_sources(folder / "rtl")
                sources = sources_in(folder / "rtl")
            build(sources, whole, folder / "build", optimize=False)
            record.write_text(json.dumps(whole.model_dump()))
    return Simulator(folder / "build" / "Vtestbench", whole)


class EveryOperator(ProgramBuilder):
    """A program with every operator that the design runs, every rounding and odd sizes."""

    def quarters(self, x: str) -> list[str]:
        """A fourth of what an input holds, half of the results ties or nearly, in each rounding."""
        return [
            self.rescale(
                f"quarter_{rounding}", x, INT8, 4, 0, rounding=rounding, offset=-128, low=-31
            )
            for rounding in Rounding
        ]

    def rescale(
        self, name: str, x: str, format: IntFormat, shift, multiplier_bits=16, **fields
    ) -> str:
        operator = Requantize(
            **{
                "rounding": Rounding.HALF_UP,
                "offset": 0,
                "zero_point": 0,
                "low": format.low,
                "high": format.high,
            }
            | fields
        )
        shift = np.asarray(shift)
        shift = shift.reshape(-1, *(1,) * (len(self.edges[x].shape) - 2))
        multiplier = np.full(shift.shape, 4)
        if multiplier_bits:
            low = 1 << (multiplier_bits - 1)
            multiplier = self.random.integers(low, 2 * low, shift.shape)
        return self.step(
            name,
            operator,
            [x],
            {"multiplier": multiplier, "shift": shift},
            {
                "multiplier": IntFormat(bits=31, signed=False),
                "shift": IntFormat(bits=6, signed=False),
            },
            format=format,
        )

    def weights(self, *shape: int) -> tuple[dict[str, np.ndarray], dict[str, IntFormat]]:
        return (
            {
                "weight": self.random.integers(-128, 128, shape),
                "bias": self.random.integers(-9999, 9999, shape[0]),
            },
            {"weight": INT8, "bias": IntFormat(bits=32, signed=True)},
        )

    def front(self) -> str:
        """Convolutions of every kind, with padding other than zero."""
        x = self.input("x", (1, 6, 7, 6), signed=False)
        tensors, formats = self.weights(10, 6, 3, 3)
        conv = Convolution(
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
            groups=1,
            padding_value=200,
        )
        a = self.step("convolution", conv, [x], tensors, formats)
        shifts = 26 + np.arange(10) % 3
        b = self.rescale("half_up", a, INT8, shifts, zero_point=-9)
        tensors, formats = self.weights(10, 1, 3, 2)
        depthwise = Convolution(
            stride=(2, 1),
            padding=((1, 0), (0, 2)),
            dilation=(1, 2),
            groups=10,
            padding_value=-9,
        )
        c = self.step("depthwise", depthwise, [b], tensors, formats)
        d = self.rescale("half_even", c, UINT8, 24, rounding=Rounding.HALF_EVEN, zero_point=99)
        tensors, formats = self.weights(6, 5, 2, 2)
        grouped = Convolution(
            stride=(1, 2), padding=((0, 1), (1, 0)), dilation=(1, 1), groups=2, padding_value=99
        )
        e = self.step("grouped", grouped, [d], tensors, formats)
        return self.rescale("half_away", e, INT8, 25, rounding=Rounding.HALF_AWAY)

    def middle(self, f: str) -> str:
        """Sums, products and pooling."""
        size = self.edges[f].shape[2:]
        g = self.step("add", Add(coefficients=(77, -1234, 5), bias=-31), [f, f, f])
        h = self.rescale(
            "double",
            g,
            INT8,
            32 + np.arange(6) % 2,
            25,
            rounding=Rounding.DOUBLE,
            low=-100,
            high=90,
        )
        pool = AveragePool(
            kernel=(3, 2),
            stride=(2, 1),
            padding=(1, 1),
            output_size=(2, size[1]),
            zero_point=-7,
            adaptive=False,
        )
        i = self.step("average", pool, [h])
        j = self.rescale("truncate", i, INT8, 18, rounding=Rounding.TRUNCATE)
        k = self.step(
            "maximum",
            MaxPool(
                kernel=(2, 2), stride=(1, 1), padding=(1, 0), output_size=(2, 2), dilation=(2, 1)
            ),
            [j],
            format=INT8,
        )
        tall = self.step("tall", Slice(axis=2, start=0, stop=1, step=1), [k], format=INT8)
        m = self.step("product", Multiply(zero_points=(-3, 11)), [k, tall])
        n = self.rescale("product:requantize", m, UINT8, 21, zero_point=77)
        adaptive = AveragePool(
            kernel=(2, 2),
            stride=(1, 1),
            padding=(0, 0),
            output_size=(2, 1),
            zero_point=3,
            adaptive=True,
        )
        o = self.step("adaptive", adaptive, [n])
        self.rescale("adaptive:requantize", o, INT8, 18)
        return n

    def back(self, n: str) -> str:
        """Moves, tables, and a classifier whose logits are wider than activations."""
        table = self.random.integers(-128, 128, 256)
        o = self.step(
            "lookup", Lookup(first=0), [n], {"table": table}, {"table": INT8}, format=INT8
        )
        p = self.step("clamp", Clamp(low=-60, high=77), [o], format=INT8)
        value = self.random.integers(-128, 128, (1, 3, 2, 2))
        q = self.step("constant", Constant(), [], {"value": value}, {"value": INT8}, format=INT8)
        r = self.step("concatenate", Concatenate(axis=1), [p, q, o], format=INT8)
        amounts = ((0, 0), (1, -2), (0, 1), (2, 0))
        s = self.step("pad", Pad(amounts=amounts, value=-5), [r], format=INT8)
        t = self.step("permute", Permute(order=(0, 2, 3, 1)), [s], format=INT8)
        u = self.step("slice", Slice(axis=3, start=1, stop=14, step=2), [t], format=INT8)
        index = {"index": np.array([2, 0, 0, 1])}
        v = self.step("gather", Gather(axis=2), [u], index, {"index": UINT8}, format=INT8)
        w = self.step("sum", Sum(axes=(3,), keep_axes=False, zero_point=4, terms=7), [v])
        x = self.rescale("sum:requantize", w, INT8, 18)
        features = int(np.prod(self.edges[x].shape))
        y = self.step("reshape", Reshape(shape=(features,)), [x], format=INT8)
        z = self.step("linear", Linear(), [y], *self.weights(9, features))
        return self.rescale("logits", z, IntFormat(bits=16, signed=False), 16, zero_point=30_000)

    def normalized(self, name: str, x: str, centred: bool, largest_shift: int) -> str:
        terms = self.edges[x].shape[-1]
        operator = Normalize(
            terms=terms, centred=centred, zero_point=-7, epsilon=77_777, fraction_bits=9
        )
        tensors = {
            "gain": self.random.integers(-900, 900, terms),
            "bias": self.random.integers(-9999, 9999, terms),
        }
        if largest_shift:
            tensors["channel_shift"] = self.random.integers(0, largest_shift + 1, terms)
        wide = IntFormat(bits=32, signed=True)
        normal = self.step(name, operator, [x], tensors, dict.fromkeys(tensors, wide))
        return self.rescale(f"{name}:requantize", normal, UINT8, 28, zero_point=99)

    def softmax(
        self, name: str, inputs: list[str], mask: np.ndarray | None = None, fraction_bits=20
    ) -> str:
        """With so few bits in the reciprocal that every one of them shows."""
        table = np.round(4096 * np.exp(-np.arange(20) / 5)).astype(np.int64)
        tensors = {"table": table} | ({} if mask is None else {"mask": mask})
        formats = {
            "table": IntFormat(bits=16, signed=False),
            "mask": IntFormat(bits=1, signed=False),
        }
        operator = Softmax(fraction_bits=fraction_bits, reciprocal_bits=24)
        weights = self.step(name, operator, inputs, tensors, formats)
        return self.rescale(f"{name}:requantize", weights, UINT8, fraction_bits + 8)

    def matmul(self, name: str, a: str, b: str, zero_points: tuple[int, int], shift: int) -> str:
        terms = self.edges[a].shape[-1]
        product = self.step(name, Matmul(zero_points=zero_points, terms=terms), [a, b])
        return self.rescale(f"{name}:requantize", product, UINT8, shift, zero_point=120)

    def attention(self) -> list[str]:
        """Tokens, attention of two heads with three kinds of masks, norms, and sums over rows."""
        tokens = self.input("tokens", (1, 7), bits=4, signed=False)
        table = {"table": self.random.integers(-128, 128, (16, 6))}
        a = self.step("embedding", Embedding(), [tokens], table, {"table": INT8}, format=INT8)
        b = self.normalized("layer_norm", a, centred=True, largest_shift=0)
        c = self.step("rows", Linear(), [b], *self.weights(10, 6))
        d = self.rescale("rows:requantize", c, UINT8, 24, zero_point=131)
        e = self.step("heads", Reshape(shape=(7, 2, 5)), [d], format=UINT8)
        f = self.step("by_head", Permute(order=(0, 2, 1, 3)), [e], format=UINT8)
        g = self.step("turned", Permute(order=(0, 1, 3, 2)), [f], format=UINT8)
        h = self.matmul("scores", f, g, (131, 131), 23)
        seen = np.tril(np.ones((7, 7), np.int64))
        seen[2] = 0
        plain = self.softmax("plain", [h], fraction_bits=15)
        causal = self.softmax("causal", [h], seen)
        both = self.softmax("both", [h, self.input("mask", (1, 1, 1, 7), bits=2)], seen)
        i = self.matmul("values", plain, f, (0, 131), 24)
        j = self.matmul(
            "signed", causal, self.rescale("wide", f, INT8, 15, offset=-128), (9, -3), 24
        )
        k = self.step("joined", Add(coefficients=(3, -5), bias=7), [i, j])
        m = self.rescale("joined:requantize", k, INT8, 19)
        n = self.step("windows", Reshape(shape=(7, 5)), [m], format=INT8)
        o = self.normalized("rms_norm", n, centred=False, largest_shift=0)
        # Squares of more than 48 bits, and fewer above.
        wide = self.rescale("windows:wide", n, IntFormat(bits=16, signed=True), 8)
        shifted = self.normalized("shifted", wide, centred=True, largest_shift=10)
        p = self.step("last", Sum(axes=(2,), keep_axes=True, zero_point=3, terms=5), [o])
        q = self.step("both_axes", Sum(axes=(1, 2), keep_axes=False, zero_point=0, terms=35), [o])
        r = self.step(
            "map",
            MaxPool(kernel=(2,), stride=(2,), padding=(0,), output_size=(2,), dilation=(1,)),
            [o],
            format=UINT8,
        )
        entries = {"table": self.random.integers(-9999, 9999, 33)}
        curve = Interpolate(first=0, step_bits=3)
        s = self.step("curve", curve, [r], entries, {"table": IntFormat(bits=16, signed=True)})
        return [both, shifted, p, q, s]


def every_operator() -> tuple[IntegerProgram, dict[str, np.ndarray]]:
    """A program with every operator that the design runs, and codes of two samples."""
    make = EveryOperator(seed=3)
    logits = make.back(make.middle(make.front()))
    others = [*make.quarters("x"), *make.attention()]
    program = make.build(logits, "adaptive:requantize", *others)
    return program, make.codes(2)
