"""Has Deeploy's own parser and code generator consume an export, and runs the C that comes out.

    python scripts/deeploy_check.py FOLDER [--network resnet20]

FOLDER receives a virtual environment with deeploy-pulp 0.2.1, the export, the generated C and the
program made of it. The wheel has parsers, bindings and templates, but neither Deeploy's test runner
nor its C kernels: the kernels here are written from the calls that the templates make, so that what
is checked is the export and what Deeploy generates from it. An optional job: it installs packages
from the network, which `make test` never does. The exit status is 0 where all codes are equal.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

PACKAGES = ("deeploy-pulp==0.2.1", "numpy<2", "protobuf==4.23.3", "setuptools<82")
SAMPLES = 50
KERNELS = r"""
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define BEGIN_SINGLE_CORE {
#define END_SINGLE_CORE }
#define SINGLE_CORE
#define deeploy_malloc malloc
#define deeploy_free free

static inline void Conv2d_s8_s8_s32_NCHW(const int8_t *x, int C, int H, int W, const int8_t *w,
    int F, int P, int Q, int SP, int SQ, int32_t *y, int32_t in, int32_t out) {
  for (int f = 0; f < F; f++)
    for (int h = 0; h + P <= H; h += SP)
      for (int v = 0; v + Q <= W; v += SQ) {
        int32_t sum = out;
        for (int c = 0; c < C; c++)
          for (int p = 0; p < P; p++)
            for (int q = 0; q < Q; q++)
              sum += (x[(c * H + h + p) * W + v + q] + in) * w[((f * C + c) * P + p) * Q + q];
        *y++ = sum;
      }
}

static inline void DWConv2d_s8_s8_s32_NCHW(const int8_t *x, int C, int H, int W, const int8_t *w,
    int P, int Q, int SP, int SQ, int32_t *y, int32_t in, int32_t out) {
  int rows = (H - P) / SP + 1, columns = (W - Q) / SQ + 1;
  for (int c = 0; c < C; c++)
    Conv2d_s8_s8_s32_NCHW(x + c * H * W, 1, H, W, w + c * P * Q, 1, P, Q, SP, SQ,
                          y + c * rows * columns, in, out);
}

static inline void MaxPool2d_s8_s8_NCHW(const int8_t *x, int C, int H, int W, int P, int Q,
    int SP, int SQ, int8_t *y, int32_t in, int32_t out) {
  for (int c = 0; c < C; c++)
    for (int h = 0; h + P <= H; h += SP)
      for (int v = 0; v + Q <= W; v += SQ) {
        int32_t most = INT32_MIN;
        for (int p = 0; p < P; p++)
          for (int q = 0; q < Q; q++) {
            int32_t value = x[(c * H + h + p) * W + v + q] + in;
            most = value > most ? value : most;
          }
        *y++ = (int8_t)(most + out);
      }
}

static inline void Gemm_s8_s8_s32_s32(const int8_t *a, const int8_t *b, const int32_t *c,
    int32_t *y, int M, int N, int O, int32_t alpha, int32_t beta, int transA, int transB,
    int32_t offA, int32_t offB, int32_t offC, int32_t offY) {
  for (int m = 0; m < M; m++)
    for (int o = 0; o < O; o++) {
      int32_t sum = 0;
      for (int n = 0; n < N; n++)
        sum += (a[transA ? n * M + m : m * N + n] + offA)
             * (b[transB ? o * N + n : n * O + o] + offB);
      y[m * O + o] = alpha * sum + beta * (c[m * O + o] + offC) + offY;
    }
}

#define REQUANT_SHIFT(BITS) \
  static inline void RequantShift_s##BITS##_s8_NCHW(const int##BITS##_t *x, int size, \
      const int32_t *mul, const int32_t *add, int8_t *y, int shift, int inner, int32_t in, \
      int32_t out, int low, int high, bool rounding) { \
    for (int i = 0; i < size; i++) { \
      int64_t wide = ((int64_t)x[i] + in) * mul[i / inner] + add[i / inner]; \
      wide += rounding && shift > 0 ? 1 << (shift - 1) : 0; \
      if (wide != (int32_t)wide) { fprintf(stderr, "32 bits exceeded\n"); exit(2); } \
      int32_t value = ((int32_t)wide >> shift) + out; \
      y[i] = (int8_t)(value < low ? low : value > high ? high : value); \
    } \
  }
REQUANT_SHIFT(8)
REQUANT_SHIFT(16)
REQUANT_SHIFT(32)
"""
MAIN = r"""
#include "Network.h"
int main(void) {
  InitNetwork(0, 1);
  while (fread(DeeployNetwork_inputs[0], 1, DeeployNetwork_inputs_bytes[0], stdin)
         == DeeployNetwork_inputs_bytes[0]) {
    RunNetwork(0, 1);
    fwrite(DeeployNetwork_outputs[0], 1, DeeployNetwork_outputs_bytes[0], stdout);
  }
  return 0;
}
"""


def main() -> int:
    """Exports, generates, compiles, runs and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="resnet20", help="a network of the zoo")
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if arguments.generate:
        generate(folder)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    export(folder, arguments.network)
    python = environment(folder / "environment")
    subprocess.run([python, __file__, str(folder), "--generate"], check=True)
    return compare(folder)


def export(folder: Path, network: str) -> None:
    """Quantizes a network of the zoo for Deeploy and writes what its tests read."""
    import numpy as np

    from photomask import zoo
    from photomask.chip import (
        NumpyEngine,
        Recipe,
        calibrate,
        convert,
        load_recipe,
        load_target,
        prepare,
    )
    from photomask.chip.forms.deeploy import deeploy_model
    from photomask.chip.forms.onnx_builder import save_onnx

    images, tested = zoo.calibration_set(128)[0], zoo.test_set()[0][:SAMPLES]
    symmetric = load_recipe("w8a8-symmetric")
    recipe = Recipe(weight=symmetric.weight, activation=symmetric.activation, output_bits=8)
    prepared = prepare(zoo.load(network), recipe, images[:1])
    calibrate(prepared, [[images]])
    # Sums times a 16-bit multiplier would not fit RequantShift's 32 bits.
    target = load_target("deeploy").model_copy(update={"multiplier_bits": 8})
    program = convert(prepared, target)
    (name,) = program.inputs
    codes = program.quantize_input(tested).numpy()
    made = deeploy_model(program, {name: codes[:1]})
    save_onnx(made.model, folder / "network.onnx")
    np.savez(folder / "inputs.npz", **made.inputs)  # type: ignore[arg-type]
    np.savez(folder / "outputs.npz", **made.outputs)  # type: ignore[arg-type]
    (output,) = made.outputs
    results = NumpyEngine(program).run({name: codes})[program.outputs[0]]
    np.savez(folder / "samples.npz", **{next(iter(made.inputs)): codes, output: results})
    print(f"exported {network}: {len(made.model.graph.node)} nodes")


def environment(folder: Path) -> str:
    """Returns the interpreter of a virtual environment that has Deeploy."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def generate(folder: Path) -> None:
    """Runs in Deeploy's environment: parse, bind, and generate C for the generic platform."""
    import numpy as np
    import onnx
    import onnx_graphsurgeon as surgeon  # type: ignore[import-not-found]
    from Deeploy.AbstractDataTypes import PointerClass  # type: ignore[import-not-found]
    from Deeploy.CommonExtensions.DataTypes import int8_t  # type: ignore[import-not-found]
    from Deeploy.Targets.Generic import Deployer, Platform  # type: ignore[import-not-found]

    graph = surgeon.import_onnx(onnx.load(folder / "network.onnx"))
    unsigned = {value.name: value.dtype == np.uint8 for value in graph.inputs}
    deployer = Deployer.GenericDeployer(
        graph,
        Platform.GenericPlatform(),
        {name: PointerClass(int8_t) for name in unsigned},
        Platform.GenericOptimizer,
        lambda nodes: nodes.nodes,
        name="DeeployNetwork",
        default_channels_first=True,
        deeployStateDir=str(folder / "state"),
        # Deeploy carries unsigned codes as int8, 128 lower.
        inputOffsets={name: 128 if is_unsigned else 0 for name, is_unsigned in unsigned.items()},
    )
    deployer.prepare()
    write_sources(deployer, folder)
    samples = np.load(folder / "samples.npz")
    (given,), (taken,) = graph.inputs, graph.outputs
    codes = samples[given.name] - (128 if unsigned[given.name] else 0)
    (folder / "inputs.bin").write_bytes(codes.astype(np.int8).tobytes())
    buffer = deployer.ctxt.lookup(taken.name)
    results = samples[taken.name] - (0 if buffer._signed else buffer.nLevels // 2)
    (folder / "expected.bin").write_bytes(results.astype(np.int8).tobytes())
    print(f"Deeploy parsed, bound and generated C for {len(deployer.layerBinding)} layers")


def write_sources(deployer: Any, folder: Path) -> None:
    """Puts the parts that Deeploy generates into a header and a source, as its templates ask."""
    arguments = "(uint32_t core_id, uint32_t numThreads)"
    header = [
        '#pragma once\n#include "DeeployBasicMath.h"',
        f"void RunNetwork{arguments};\nvoid InitNetwork{arguments};",
        deployer.generateIOBufferInitializationCode(),
    ]
    source = [
        '#include "Network.h"',
        deployer.generateBufferInitializationCode(),
        deployer.generateGlobalDefinitionCode(),
        f"void RunNetwork{arguments} {{",
        deployer.generateInferenceInitializationCode(),
        deployer.generateFunction(),
        f"}}\nvoid InitNetwork{arguments} {{",
        deployer.generateEngineInitializationCode(),
        deployer.generateBufferAllocationCode(),
        "}\n",
    ]
    (folder / "Network.h").write_text("\n".join(header), encoding="utf-8")
    (folder / "Network.c").write_text("\n".join(source), encoding="utf-8")
    (folder / "DeeployBasicMath.h").write_text(KERNELS, encoding="utf-8")
    (folder / "main.c").write_text(MAIN, encoding="utf-8")


def compare(folder: Path) -> int:
    """Compiles what was generated, runs it, and compares every code."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print("no C compiler: what was generated is not run")
        return 1
    program = folder / "network"
    sources = [str(folder / name) for name in ("Network.c", "main.c")]
    subprocess.run([compiler, "-O2", "-w", "-o", program, *sources], check=True)
    given = (folder / "inputs.bin").read_bytes()
    found = subprocess.run([program], input=given, capture_output=True, check=True).stdout
    expected = (folder / "expected.bin").read_bytes()
    equal = sum(a == b for a, b in zip(found, expected, strict=False))
    print(
        f"{equal} of {len(expected)} codes of Deeploy's C, for {SAMPLES} samples, are the oracle's"
    )
    return 0 if found == expected else 1


if __name__ == "__main__":
    sys.exit(main())
