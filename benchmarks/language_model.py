"""Does a real language model stay itself in integers, from the prompt to the last token?

SmolLM2-135M-Instruct on 20,000 tokens of text: perplexity in float, with quantizers and as an
integer program. The same on 50 short chat prompts: how often the integers choose the float model's
token. Mismatching integers between the engines; what it writes beside what the float model writes;
tokens a second.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chat import BATCH, agree, answer, opened_windows
from chat_prompts import CALIBRATION, SELECTION, TEST
from photomask.chip import (
    CEngine,
    IntegerProgram,
    NumpyEngine,
    OnnxEngine,
    PreparedModel,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.decoding import CachedModel, Decoder, prepare_like
from photomask.chip.equalization import smooth, smooth_products
from photomask.chip.weight_rounding import compensate_rounding
from photomask.errors import MissingDependencyError, PhotomaskError
from rows import FOLDER, Results, Subject
from smollm2 import LanguageModel, load_smollm2, load_texts

WHAT, NETWORK = "language_model", "SmolLM2-135M-Instruct"
WRITTEN = 32
"""Tokens behind each question."""

Runs = dict[str, Callable[[Tensor], Tensor]]
CALIBRATION_ANSWER = 160
"""Tokens of an answer that calibration sees at most."""


@dataclass(frozen=True)
class Setting:
    """What is measured, and where."""

    results: Results
    subject: Subject
    device: torch.device


def main() -> int:
    """Measures everything; the exit status is 1 if engines differ."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    results = Results(WHAT)
    try:
        language = load_smollm2(arguments.weights)
        texts, books = load_texts(arguments.part), load_texts("calibration")
    except MissingDependencyError as error:
        results.skipped(Subject(WHAT, "photomask", NETWORK), str(error))
        return 0
    device = torch.device(arguments.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    subject = Subject(WHAT, f"photomask {arguments.recipe}", NETWORK, device=where)
    setting = Setting(results, subject, device)
    windows = windows_of(language.tokens("\n".join(texts)), arguments.window)
    windows = windows[: -(-arguments.tokens // arguments.window)]
    model = CachedModel(language.model, positions=arguments.positions)
    plain = LanguageModel(copy.deepcopy(language.model).to(device), language.tokenizer)
    data = calibration_windows(plain, books, arguments.window, arguments.calibration_windows)
    print(f"calibration: {len(data)} windows of {arguments.window} tokens", flush=True)
    whole = quantized(model, arguments, data, device)
    runs = runs_of(whole, model, plain, device)
    measure_perplexity(setting, runs, windows, arguments.part)
    measure_agreement(setting, runs, plain, arguments)
    mismatches = measure_exactness(setting, whole, model, windows, arguments.gate_tokens)
    if arguments.questions:
        chunks = [program_for(whole, model, n, arguments.positions) for n in (32, 1)]
        decoder = Decoder(*chunks, engine=partial(TorchEngine, device=device))
        measure_speed(setting, decoder, windows)
        write_answers(plain, decoder, TEST[: arguments.questions], arguments.recipe)
    return int(mismatches > 0)


def _arguments() -> argparse.Namespace:
    """Returns what is asked for."""
    parser = argparse.ArgumentParser(description="A language model in integers.")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--part", choices=("selection", "test"), default="test")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--positions", type=int, default=256, help="the longest text")
    parser.add_argument("--recipe", default="w8a8-decoder")
    parser.add_argument("--strength", type=float, default=0.65, help="of smoothing norms")
    parser.add_argument("--product-strength", type=float, default=0.5, help="and products")
    parser.add_argument("--plain-rounding", action="store_true", help="of weights: no GPTQ")
    parser.add_argument("--calibration-windows", type=int, default=7, help="of each book")
    parser.add_argument("--prompts", type=int, default=50, help="compared token by token")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--gate-tokens", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where it runs: cpu or cuda")
    parser.add_argument("--weights", type=Path, help="folder of the weights' file")
    return parser.parse_args()


def calibration_windows(
    language: LanguageModel, books: list[str], length: int, count: int
) -> Tensor:
    """Returns beginnings of books, and windows that begin with dialogues.

    A dialogue is a question with the answer of the float model.
    """
    parts = [windows_of(language.tokens(book), length)[:count] for book in books]
    dialogues = answer(language, CALIBRATION, CALIBRATION_ANSWER)
    return torch.cat([*parts, opened_windows(dialogues, length)])


def windows_of(tokens: Tensor, length: int) -> Tensor:
    """Returns a text in windows, int64 [count, length]."""
    return tokens[: len(tokens) // length * length].reshape(-1, length)


def quantized(
    model: CachedModel, arguments: argparse.Namespace, windows: Tensor, device: torch.device
) -> PreparedModel:
    """Returns the model that computes whole windows, smoothed, calibrated and rounded."""
    example = model.first_chunk(windows[:1], 1)
    data = [[x.to(device) for x in model.first_chunk(part, 1)] for part in windows.split(BATCH)]
    prepared = prepare(model, load_recipe(arguments.recipe), example, states=model.states)
    prepared = prepared.to(device)
    smooth(prepared, data, strength=arguments.strength, shift=True)
    smooth_products(prepared, data, strength=arguments.product_strength)
    calibrate(prepared, data)
    if not arguments.plain_rounding:
        compensate_rounding(prepared, data)
    return prepared.cpu()


def program_for(
    prepared: PreparedModel, model: CachedModel, tokens: int, capacity: int
) -> IntegerProgram:
    """Returns the program of a chunk."""
    example = model.first_chunk(torch.zeros(1, tokens, dtype=torch.int64), capacity)
    return convert(prepare_like(prepared, model, example), load_target("asic"))


def runs_of(
    prepared: PreparedModel, model: CachedModel, plain: LanguageModel, device: torch.device
) -> Runs:
    """Returns the float model, the one with quantizers and the integer program.

    Each takes tokens, int64 [batch, window], and returns logits.
    """
    program = convert(prepared, load_target("asic"))
    engine, edge = TorchEngine(program, device), program.edges[program.outputs[0]]
    twin = copy.deepcopy(prepared).to(device)

    def integers(tokens: Tensor) -> Tensor:
        inputs = zip(program.inputs, model.first_chunk(tokens, 1), strict=True)
        codes = {name: program.quantize_input(x, name) for name, x in inputs}
        return edge.dequantize(engine.run(codes)[edge.name])

    def with_quantizers(tokens: Tensor) -> Tensor:
        return twin(*(x.to(device) for x in model.first_chunk(tokens, 1)))[0]

    return {
        "float": lambda tokens: plain.model(tokens.to(device)).logits,
        "fake-quantized": with_quantizers,
        "integers": integers,
    }


def measure_perplexity(setting: Setting, runs: Runs, windows: Tensor, part: str) -> None:
    """Measures all runs on a long text."""
    note = f"{part}: {windows.numel()} tokens in windows of {windows.shape[1]}"
    for what, run in runs.items():
        start = time.perf_counter()
        found = perplexity(run, windows)
        seconds = time.perf_counter() - start
        setting.results.number(
            setting.subject, f"perplexity, {what}", found, "", note=f"{note}, {seconds:.0f} s"
        )


def measure_agreement(
    setting: Setting, runs: Runs, language: LanguageModel, arguments: argparse.Namespace
) -> None:
    """Compares what the float model chooses in its answers with what the others choose there."""
    prompts = (TEST if arguments.part == "test" else SELECTION)[: arguments.prompts]
    dialogues = answer(language, prompts)
    for what in ("fake-quantized", "integers"):
        found = agree(runs["float"], runs[what], dialogues, arguments.window)
        note = (
            f"{arguments.part}: {len(dialogues)} prompts, {found.positions} tokens of the float "
            "model's answers"
        )
        figures = {
            "top-1 agreement": (found.top_1, ""),
            "first tokens alike": (found.first, ""),
            "divergence": (found.divergence, "nats"),
            "whole answers alike": (found.whole, ""),
        }
        for metric, (value, unit) in figures.items():
            setting.results.number(setting.subject, f"{metric}, {what}", value, unit, note=note)


def perplexity(run: Callable[[Tensor], Tensor], windows: Tensor) -> float:
    """Returns `exp` of the mean loss of each next token inside its window."""
    total = 0.0
    with torch.no_grad():
        for tokens in windows.split(1):
            logits = run(tokens)[0, :-1].double()
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:].to(logits.device))
            total += float(loss) / len(windows)
    return math.exp(total)


def measure_exactness(
    setting: Setting, prepared: PreparedModel, model: CachedModel, windows: Tensor, length: int
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
    setting.results.number(setting.subject, "integers compared", integers, "integers")
    runs = {
        "torch": lambda: TorchEngine(program, setting.device).edges(tensors),
        "C": lambda: CEngine(program).run(codes).items(),
        "ONNX Runtime": lambda: OnnxEngine(program).run(codes).items(),
    }
    total = 0
    for name, run in runs.items():
        metric, where = f"mismatches, {name}", "every edge" if name == "torch" else "outputs"
        try:
            found = [(edge, torch.as_tensor(x).cpu().numpy()) for edge, x in run()]
        except PhotomaskError as error:
            print(f"{metric}: not measured here: {error}", flush=True)
            continue
        different = sum(int((x != expected[edge]).sum()) for edge, x in found)
        setting.results.number(setting.subject, metric, different, "integers", note=where)
        total += different
    return total


def measure_speed(setting: Setting, decoder: Decoder, windows: Tensor) -> None:
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
        setting.results.samples(setting.subject, f"{what} speed", rates, "tokens/s", note=note)


def write_answers(
    language: LanguageModel, decoder: Decoder, questions: tuple[str, ...], name: str
) -> None:
    """Writes what both models answer, side by side, as a page to read."""
    lines = [f"# What {NETWORK} writes in float and in integers ({name})", ""]
    for question in questions:
        (dialogue,) = answer(language, [question], WRITTEN)
        expected = dialogue.answer.numpy()
        found = decoder.generate(dialogue.prompt[None].numpy(), WRITTEN)[0][: len(expected)]
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
