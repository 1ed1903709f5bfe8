"""Does a real language model stay itself in integers, from the prompt to the last token?

SmolLM2-135M-Instruct on 20,000 tokens: perplexity in float, with quantizers and as an integer
program; mismatching integers between the engines; what it writes beside what the float model
writes; tokens a second.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photomask.chip import (
    CEngine,
    IntegerProgram,
    NumpyEngine,
    OnnxEngine,
    PreparedModel,
    Quantizer,
    Recipe,
    Rule,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.decoding import CachedModel, Decoder, prepare_like
from photomask.chip.equalization import smooth
from photomask.errors import MissingDependencyError
from rows import FOLDER, Results, Subject
from smollm2 import LanguageModel, load_smollm2, load_text

WHAT, NETWORK = "language_model", "SmolLM2-135M-Instruct"
WRITTEN = 32
"""Tokens behind each question."""
QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Write a short poem about the sea.",
    "Explain why the sky is blue.",
    "How do I boil an egg?",
    "Translate 'good morning' into Spanish.",
    "What is 7 times 8?",
    "Who wrote Romeo and Juliet?",
    "Give me a tip for sleeping well.",
    "What is a transistor?",
)


def main() -> int:
    """Measures everything; the exit status is 1 if engines differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--positions", type=int, default=256, help="the longest text")
    parser.add_argument("--recipe", default="w8a8-residual16")
    parser.add_argument("--wide", nargs="*", default=[], help="sites with outputs of 16 bits")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--gate-tokens", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = Results(WHAT)
    try:
        language = load_smollm2()
        text, calibration = (load_text(part) for part in ("test", "calibration"))
    except MissingDependencyError as error:
        results.skipped(Subject(WHAT, "photomask", NETWORK), str(error))
        return 0
    name = " ".join([arguments.recipe, "smooth", *(f"{site}16" for site in arguments.wide)])
    subject = Subject(WHAT, f"photomask {name}", NETWORK)
    windows = windows_of(language.tokens(text), arguments.window)
    windows = windows[: -(-arguments.tokens // arguments.window)]
    model = CachedModel(language.model, positions=arguments.positions)
    whole = quantized(model, recipe_for(arguments), language.tokens(calibration), arguments.window)
    measure_perplexity(results, subject, language, model, whole, windows)
    chunks = [program_for(whole, model, n, arguments.positions) for n in (32, 1)]
    mismatches = measure_exactness(results, subject, whole, model, windows, arguments.gate_tokens)
    decoder = Decoder(*chunks, engine=TorchEngine)
    measure_speed(results, subject, decoder, windows)
    write_answers(language, decoder, QUESTIONS[: arguments.questions], name)
    return int(mismatches > 0)


def windows_of(tokens: Tensor, length: int) -> Tensor:
    """Returns a text in windows, int64 [count, length]."""
    return tokens[: len(tokens) // length * length].reshape(-1, length)


def recipe_for(arguments: argparse.Namespace) -> Recipe:
    """Returns the recipe, with more bits where they are asked for."""
    wide = Quantizer(16, symmetric=False)
    rules = tuple(Rule(match=site, activation=wide) for site in arguments.wide)
    base = load_recipe(arguments.recipe)
    return replace(base, rules=(*base.rules, *rules))


def quantized(model: CachedModel, recipe: Recipe, text: Tensor, length: int) -> PreparedModel:
    """Returns the model that computes whole windows, smoothed and calibrated."""
    data = [model.first_chunk(part, 1) for part in windows_of(text, length)[:8].split(2)]
    prepared = prepare(model, recipe, data[0], states=model.states)
    smooth(prepared, data)
    calibrate(prepared, data)
    return prepared


def program_for(
    prepared: PreparedModel, model: CachedModel, tokens: int, capacity: int
) -> IntegerProgram:
    """Returns the program of a chunk."""
    example = model.first_chunk(torch.zeros(1, tokens, dtype=torch.int64), capacity)
    return convert(prepare_like(prepared, model, example), load_target("asic"))


def measure_perplexity(
    results: Results,
    subject: Subject,
    language: LanguageModel,
    model: CachedModel,
    prepared: PreparedModel,
    windows: Tensor,
) -> None:
    """Measures the float model, the one with quantizers, and the integer program."""
    program = convert(prepared, load_target("asic"))
    engine, edge = TorchEngine(program), program.edges[program.outputs[0]]

    def integers(tokens: Tensor) -> Tensor:
        inputs = zip(program.inputs, model.first_chunk(tokens, 1), strict=True)
        codes = {name: program.quantize_input(x, name) for name, x in inputs}
        return edge.dequantize(engine.run(codes)[edge.name])

    runs: dict[str, Callable[[Tensor], Tensor]] = {
        "float": lambda tokens: language.model(tokens).logits,
        "fake-quantized": lambda tokens: prepared(*model.first_chunk(tokens, 1))[0],
        "integers": integers,
    }
    note = f"{windows.numel()} tokens in windows of {windows.shape[1]}"
    for what, run in runs.items():
        start = time.perf_counter()
        found = perplexity(run, windows)
        seconds = time.perf_counter() - start
        results.number(subject, f"perplexity, {what}", found, "", note=f"{note}, {seconds:.0f} s")


def perplexity(run: Callable[[Tensor], Tensor], windows: Tensor) -> float:
    """Returns `exp` of the mean loss of each next token inside its window."""
    total = 0.0
    with torch.no_grad():
        for tokens in windows.split(1):
            logits = run(tokens)[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:])) / len(windows)
    return math.exp(total)


def measure_exactness(
    results: Results,
    subject: Subject,
    prepared: PreparedModel,
    model: CachedModel,
    windows: Tensor,
    length: int,
) -> int:
    """Counts differing integers on every edge, for four short texts."""
    program = program_for(prepared, model, length, length)
    inputs = model.first_chunk(windows[:4, :length], length)
    codes = {
        name: program.quantize_input(x, name).numpy()
        for name, x in zip(program.inputs, inputs, strict=True)
    }
    tensors = {name: torch.from_numpy(x) for name, x in codes.items()}
    expected = dict(NumpyEngine(program).edges(codes))
    integers = sum(array.size for array in expected.values())
    results.number(subject, "integers compared", integers, "integers")
    runs = {
        "torch": lambda: TorchEngine(program).edges(tensors),
        "C": lambda: CEngine(program).run(codes).items(),
        "ONNX Runtime": lambda: OnnxEngine(program).run(codes).items(),
    }
    total = 0
    for name, run in runs.items():
        different = sum(int((np.asarray(x) != expected[edge]).sum()) for edge, x in run())
        where = "every edge" if name == "torch" else "outputs"
        results.number(subject, f"mismatches, {name}", different, "integers", note=where)
        total += different
    return total


def measure_speed(results: Results, subject: Subject, decoder: Decoder, windows: Tensor) -> None:
    """Measures tokens a second of a prompt and of writing, with the torch engine."""
    prompt = windows[:1, :128].numpy()
    for what, part, count in (("prefill", prompt, 1), ("decode", prompt[:, :1], 16)):
        rates = []
        for _ in range(3):
            decoder.reset()
            if what == "decode":
                decoder.feed(prompt)
            start = time.perf_counter()
            for _ in range(count):
                decoder.feed(part)
            rates.append(count * part.shape[1] / (time.perf_counter() - start))
        note = f"torch engine, {torch.get_num_threads()} threads, cache of {decoder.capacity}"
        results.samples(subject, f"{what} speed", rates, "tokens/s", note=note)


def write_answers(
    language: LanguageModel, decoder: Decoder, questions: tuple[str, ...], name: str
) -> None:
    """Writes what both models answer, side by side, as a page to read."""
    lines = [f"# What {NETWORK} writes in float and in integers ({name})", ""]
    for question in questions:
        prompt = language.prompt(question)[None]
        with torch.no_grad():
            expected = language.model.generate(prompt, max_new_tokens=WRITTEN, do_sample=False)
        expected = expected[0, prompt.shape[1] :].numpy()
        found = decoder.generate(prompt.numpy(), WRITTEN)[0][: len(expected)]
        same = int(np.cumprod(found == expected).sum())
        lines += [f"## {question}", "", f"The first {same} of {len(expected)} tokens agree.", ""]
        for what, tokens in (("float", expected), ("integers", found)):
            text = language.tokenizer.decode(tokens, skip_special_tokens=True)
            lines += [f"- {what}: {' '.join(text.split())}"]
        lines.append("")
    path: Path = FOLDER / "language_model_answers.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
