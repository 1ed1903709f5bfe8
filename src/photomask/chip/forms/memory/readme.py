"""The `README.md` inside an export, for the person who receives it."""

from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.manifest import Manifest

TEXT = """\
# An integer-only model for target `{target}`

Written by Photomask {version}: {steps} steps, {tensors} constant tensors, {edges} edges,
{samples} golden sample(s). No floating point takes part in the computation.

| path | what it is |
|---|---|
| `manifest.json` | the graph, and format, shape, layout, words and SHA-256 of every file |
| `memory/<step>/<role>.<format>` | what a step reads: weight, bias, multiplier, shift, table… |
| `golden/<sample>/<edge>.<format>` | what flows: inputs, accumulators, activations, outputs |
{conformance_row}| `program.json`, `program.safetensors` | the program itself, for Photomask |

Steps and edges in `manifest.json` are in the order of computation. Their names are made safe for
file systems; each file's record there says which step, role, edge and sample it belongs to.

Inputs of the model: {inputs}. Outputs: {outputs}.

## Formats here

{formats}

## Words

A memory word has {word_bits} bits. An element of `b` bits, in two's complement or unsigned as the
manifest says, takes one lane; a word has `{word_bits} // b` lanes, the first in its {first_lane}
bits. An element wider than a word takes several words, the least significant first. Bits that no
element takes, and lanes after the last element, are 0. Elements follow each other in the order
that `axes` in the manifest gives: the tensor's own axes from the slowest to the fastest.

## Loading

```systemverilog
logic [{word_bits_minus_one}:0] words [0:DEPTH-1];  // DEPTH is "words" in the manifest
initial $readmemh("memory/<step>/<role>.hex", words);
```

## Checking a simulator

Dump any edges of any samples with `$writememh` into a folder that mirrors `golden/`
(`<sample>/<edge>.hex`, or `<edge>.hex` for sample 0). Then

```
photomask chip check THIS_FOLDER SIMULATOR_FOLDER
```

names the first mismatch in the order of computation: sample, edge, step, operator, coordinate,
word and lane, expected and found. Unused bits and the lanes after the last element are not
compared. Without Photomask, compare with the files in `golden/`, word by word.
{conformance}"""

CONFORMANCE_ROW = """\
| `conformance/` | vectors that prove how a simulator rounds, as a folder like this one |
"""
CONFORMANCE = """
## Proving the rounding

The data of a network hardly ever make a tie, so its golden vectors do not show how halves are
rounded. `conformance/` holds a second, tiny program, to be run in the same way: its steps are the
rescalings of this one, on accumulators and multipliers that make ties of both signs, results beyond
both ends, and the largest products. `conformance/vectors.json` lists accumulator, multiplier, shift
and expected result of each vector. Put what your simulator computes for the edges of that program
into SIMULATOR_FOLDER/conformance; the check then names a wrong rounding, shift or saturation.
"""

FORMATS = {
    Encoding.HEX: "- `.hex`: one word a line, lower case, for `$readmemh`; the first line is a "
    "`//` comment",
    Encoding.BIN: "- `.bin`: one word a line, binary digits, for `$readmemb`; the first line is a "
    "`//` comment",
    Encoding.DEC: "- `.dec`: one element a line, signed decimal, in the order of `axes`",
    Encoding.NPY: "- `.npy`: the tensor in its own shape and axis order, in the narrowest NumPy "
    "integer",
}


def render_readme(manifest: Manifest) -> str:
    """Returns the text for this export."""
    return TEXT.format(
        target=manifest.target.name,
        version=manifest.photomask_version,
        steps=len(manifest.steps),
        tensors=len({record.path.rpartition(".")[0] for record in manifest.memory}),
        edges=len(manifest.edges),
        samples=manifest.samples,
        inputs=", ".join(f"`{name}`" for name in manifest.inputs),
        outputs=", ".join(f"`{name}`" for name in manifest.outputs),
        formats="\n".join(FORMATS[encoding] for encoding in manifest.encodings),
        word_bits=manifest.words.word_bits,
        word_bits_minus_one=manifest.words.word_bits - 1,
        first_lane=manifest.words.first_lane.replace("_", " "),
        conformance_row=CONFORMANCE_ROW if manifest.conformance else "",
        conformance=CONFORMANCE if manifest.conformance else "",
    )
