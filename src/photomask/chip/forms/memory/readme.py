"""The `README.md` inside an export of memory images, for the person who receives it."""

from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.manifest import Manifest

TEXT = """\
# An integer-only model for target `{target}`

This folder was written by Photomask {version}. The model has {steps} steps, {tensors} constant
tensors and {edges} edges, and the folder holds {samples} golden sample(s). The computation uses no
floating point.

| path | what it holds |
|---|---|
| `manifest.json` | the graph, and the format, shape, layout, words and SHA-256 of every file |
| `memory/<step>/<role>.<format>` | a constant of a step: weight, bias, multiplier, shift, table… |
| `golden/<sample>/<edge>.<format>` | the integers of an edge: input, accumulator, activation |
{more_rows}| `program.json`, `program.safetensors` | the program itself, for Photomask |

`manifest.json` lists steps and edges in the order of computation. File names are the names of steps
and edges, changed where a file system would not accept them. The record of each file in
`manifest.json` says to which step and role, or to which edge and sample, the file belongs.

The inputs of the model are {inputs}. Its outputs are {outputs}.

## File formats

{formats}

## Words

A memory word has {word_bits} bits. The manifest says whether an element is unsigned or in two's
complement, and how many bits `b` it has. An element takes one lane of `b` bits. A word has
`{word_bits} // b` lanes; the first lane lies in its {first_lane} bits. An element that is wider
than a word takes several words, the least significant first. Bits that no element takes, and lanes
after the last element, are 0. The elements follow each other in the order that `axes` in the
manifest gives: it lists the tensor's own axes from the slowest to the fastest.

{compressed}## Loading

```systemverilog
logic [{word_bits_minus_one}:0] words [0:DEPTH-1];  // DEPTH is "words" in the manifest
initial $readmemh("memory/<step>/<role>.hex", words);
```

## Checking a simulator

Write any edges of any samples with `$writememh` into a folder that mirrors `golden/`. The files are
called `<sample>/<edge>.hex`, or `<edge>.hex` for sample 0. Then run

```
photomask chip check THIS_FOLDER SIMULATOR_FOLDER
```

The command names the first mismatch in the order of computation, with its sample, edge, step,
operator, coordinate, word and lane, and with the expected and the found value. Unused bits, and the
lanes after the last element, are not compared. Without Photomask, compare the words of your files
with those of the files in `golden/`.
{conformance}"""

CONFORMANCE_ROW = """\
| `conformance/` | vectors that prove how a simulator rounds, in a folder like this one |
"""
CONFORMANCE = """
## Proving the rounding

The data of a network almost never produce a tie, so the golden vectors do not show how halves are
rounded. `conformance/` holds a second, tiny program that you run in the same way. Its steps rescale
as the steps of this program do. Its accumulators and multipliers produce ties of both signs,
results beyond both ends, and the largest products. `conformance/vectors.json` lists the
accumulator, multiplier, shift and expected result of each vector. Put what your simulator computes
for the edges of that program into SIMULATOR_FOLDER/conformance. The check then names a wrong
rounding, shift or saturation.
"""

COMPRESSED_ROW = """\
| `memory/<step>/weight.<stream>.<format>` | a stream of a weight without its zeros |
"""
COMPRESSED = """\
## Weights without their zeros

{count} weight(s) have streams instead of an image; `compressed` in `manifest.json` lists them. The
elements of a stream follow each other without gaps, from word to word: element i of b bits takes
the bits i*b to i*b + b - 1. Weights are read with the outputs as the slowest axis, then the kernel,
then the inputs. A weight is zero if it equals the zero point of its output, which is 0 where the
step has none.

{storages}

"""
STORAGES = {
    "n:m": (
        "- `n:m`: `group` consecutive inputs keep the `kept` weights in `values`, in ascending "
        "order of their positions p1 < p2 < ... An index in `indices` is C(p1, 1) + C(p2, 2) + "
        "..., so that those of 2:4 are 0 to 5 for the positions 01, 02, 12, 03, 13, 23"
    ),
    "bitmap": "- `bitmap`: one bit for each weight; `values` holds the weights whose bit is 1",
    "run-length": (
        "- `run-length`: each element of `runs` stands for as many zeros, and then for one element "
        "of `values`; all weights after the last one are zero"
    ),
    "blocks": (
        "- `blocks`: `values` holds blocks of `outputs` outputs and `inputs` inputs at one kernel "
        "position, with the inputs as the fastest axis, and `positions` their numbers; blocks of "
        "outputs are the slowest axis, then kernel positions, then blocks of inputs"
    ),
}

FORMATS = {
    Encoding.HEX: (
        "- `.hex`: one word per line, in lower case, for `$readmemh`; the first line is a `//` "
        "comment"
    ),
    Encoding.BIN: (
        "- `.bin`: one word per line, in binary digits, for `$readmemb`; the first line is a `//` "
        "comment"
    ),
    Encoding.DEC: "- `.dec`: one element per line, in signed decimal, in the order of `axes`",
    Encoding.NPY: (
        "- `.npy`: the tensor in its own shape and axis order, in the narrowest NumPy integer type"
    ),
}


def render_readme(manifest: Manifest) -> str:
    """Returns the text of the file for one export."""
    return TEXT.format(
        target=manifest.target.name,
        version=manifest.photomask_version,
        steps=len(manifest.steps),
        tensors=len({r.tensor for r in (*manifest.memory, *manifest.compressed)}),
        edges=len(manifest.edges),
        samples=manifest.samples,
        inputs=", ".join(f"`{name}`" for name in manifest.inputs),
        outputs=", ".join(f"`{name}`" for name in manifest.outputs),
        formats="\n".join(FORMATS[encoding] for encoding in manifest.encodings),
        word_bits=manifest.words.word_bits,
        word_bits_minus_one=manifest.words.word_bits - 1,
        first_lane=manifest.words.first_lane.replace("_", " "),
        more_rows=(COMPRESSED_ROW if manifest.compressed else "")
        + (CONFORMANCE_ROW if manifest.conformance else ""),
        compressed=_compressed(manifest) if manifest.compressed else "",
        conformance=CONFORMANCE if manifest.conformance else "",
    )


def _compressed(manifest: Manifest) -> str:
    """Returns the section about the storages that the export has."""
    kinds = dict.fromkeys(weight.storage.kind for weight in manifest.compressed)
    storages = "\n".join(STORAGES[kind] for kind in kinds)
    return COMPRESSED.format(count=len(manifest.compressed), storages=storages)
