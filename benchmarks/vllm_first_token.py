"""How long until vLLM answers prompts with many images, dense and by a plan?

Qwen2.5-VL-7B's shape with random weights, images of 1,296 tokens. vLLM with its own best attention
stands beside plans that leave a share of the heads dense. The times include the preprocessing of
pictures. Each engine runs in a process of its own (`vllm_contender.py`).

Nothing is timed before picture-questions is answered alike: a dense plan must give vLLM's own
log-probabilities bit for bit, and a sparse plan the answers of transformers with the same plan.

Every part ends within 9 minutes on an H200 with one plan: `--parts answers`, `--parts text`,
`--parts traffic`, and `--parts first-token` with one length at a time.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ours import RedGateError
from photomask.attention import HeadPlan, ModelIdentity, Pattern
from photomask.attention.identity import architecture_of
from prefill_contenders import NOISE_FACTOR, PLANS, spread
from rows import FOLDER, Results, Subject

WHAT = "vllm_first_token"
DENSE = "vLLM dense"
IMAGE_TOKENS = 1298
"""Tokens of an image with its delimiters."""
TOKENS = (36_864, 131_072, 307_200)
CHUNK = 16_384
"""The default `max_num_batched_tokens` of vLLM on an H200."""
PARTS = ("answers", "text", "traffic", "first-token")
SHAPE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "max_position_embeddings": 400_000,
    "vocab_size": 2048,
    "tie_word_embeddings": False,
}
"""The text model of Qwen2.5-VL-7B with a small vocabulary."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts that are asked for; the exit status is 1 if the gate is red."""
    arguments = parse(argv)
    results = Results(WHAT, arguments.results)
    bench = Bench(results, arguments)
    try:
        for part in arguments.parts:
            if part == "answers":
                bench.answers()
            else:
                bench.require_green()
                bench.measure(part)
    except RedGateError as error:
        results.skipped(bench.subject("photomask", "all"), f"red gate: {error}")
        return 1
    except subprocess.SubprocessError as error:
        results.skipped(bench.subject("all", "all"), f"{type(error).__name__}: {error}")
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tokens", nargs="*", type=int, default=list(TOKENS))
    parser.add_argument("--plans", nargs="*", type=int, choices=[0, *PLANS], default=[30])
    parser.add_argument("--requests", nargs="*", type=int, default=[1], help="at once: 1, 8")
    parser.add_argument(
        "--chunk", type=int, default=0, help=f"0 is one chunk; default of vLLM {CHUNK}"
    )
    parser.add_argument("--ranks", type=int, default=1, help="tensor parallel size")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--questions", type=int, default=100, help="of each task")
    parser.add_argument("--pictures", type=int, default=6, help="of each question")
    parser.add_argument("--eager", action="store_true", help="without torch.compile and graphs")
    parser.add_argument("--memory", type=float, default=0.8, help="share of the GPU's memory")
    parser.add_argument("--device", default="cuda", help="where transformers answers")
    parser.add_argument("--minutes", type=float, default=9, help="limit of each engine")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the rows")
    return parser.parse_args(argv)


class Bench:
    """Starts engines one after another, compares them, and writes the rows."""

    def __init__(self, results: Results, arguments: argparse.Namespace):
        self._results = results
        self._asked = arguments
        self._place = Path(tempfile.mkdtemp(prefix="photomask-vllm-"))
        kind = "eager" if arguments.eager else "CUDA graphs"
        self._note = f"28 layers, bfloat16, {kind}, {arguments.ranks} GPU(s)"

    def subject(self, name: str, network: str) -> Subject:
        """Returns what a row is about."""
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return Subject(WHAT, name, network, "vllm" if name == DENSE else "photomask", device)

    def answers(self) -> None:
        """Compares the answers of vLLM with those of transformers.

        Raises:
            RedGateError: a dense plan changes a bit, or a sparse plan an answer.
        """
        from photomask.zoo.picture_questions.loading import FOLDER as MODEL
        from vllm_answers import best_plan, farthest, transformers_answers

        dense_plan, plan = best_plan(self._asked.device)
        own = self._run("answers", None, MODEL)
        same = self._run("answers", self._saved(dense_plan, "dense.json"), MODEL)
        if [each["logprobs"] for each in own] != [each["logprobs"] for each in same]:
            raise RedGateError(f"a dense plan changes bits: {farthest(own, same):.3g} at most")
        sparse = self._run("answers", self._saved(plan, "sparse.json"), MODEL)
        questions, pictures = self._asked.questions, self._asked.pictures
        noise = farthest(own, transformers_answers(None, questions, pictures, self._asked.device))
        expected = transformers_answers(plan, questions, pictures, self._asked.device)
        error = farthest(sparse, expected)
        subject = self.subject("photomask in vLLM", "picture-questions")
        rights = [sum(each["right"] for each in found) for found in (sparse, expected, own)]
        for name, right in zip(("vLLM", "transformers", "vLLM dense"), rights, strict=True):
            metric = f"right answers, {name}"
            self._results.number(subject, metric, right / len(own), "ratio", note=f"of {len(own)}")
        self._results.number(subject, "error of log-probabilities", error, "nats",
                             note=f"{noise:.3g} between both without a plan")  # fmt: skip
        points = 100 * abs(rights[0] - rights[1]) / len(own)
        if error > NOISE_FACTOR * noise or points > 0.5:
            raise RedGateError(f"log-probabilities differ by {error:.3g}, answers by {points:.2f}")
        self._results.number(subject, "gate", 1, "", note="dense plan bit for bit, sparse as above")

    def require_green(self) -> None:
        """Checks that the answers were compared, in this run or in an earlier one.

        Raises:
            RedGateError: they were not.
        """
        rows = []
        if self._results.path.is_file():
            with self._results.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["metric"] == "gate"]
        if not rows:
            raise RedGateError("the answers were not compared; run --parts answers first")

    def measure(self, part: str) -> None:
        """Times dense vLLM and the plans, and writes their rows."""
        model = big_model(self._place / "model")
        everything = dense_plan_of(model)
        dense = self._run(part, None, model)
        self._write(part, DENSE, dense, {})
        medians = _medians(dense)
        for percent in self._asked.plans:
            plan = spread(everything, PLANS[percent]) if percent else no_dense(everything)
            found = self._run(part, self._saved(plan, f"{percent}.json"), model)
            self._write(part, f"photomask, {percent} % dense", found, medians)

    def _write(
        self, part: str, name: str, found: Sequence[Any], dense: dict[tuple[int, int], Any]
    ) -> None:
        """Writes the rows of one contender; ratios are those to the dense medians."""
        cases = sorted({(row["images"], row["requests"]) for row in found})
        chunk = f"chunks of {self._asked.chunk}" if self._asked.chunk else "one chunk"
        for case in cases:
            rows = [row for row in found if (row["images"], row["requests"]) == case]
            network = f"{part}: {rows[0]['tokens']} tokens x {case[1]}, {chunk}"
            subject = self.subject(name, network)
            seconds = [row["seconds"] for row in rows]
            self._results.samples(subject, "seconds", seconds, "s", note=self._note)
            rates = [row["generated"] / row["seconds"] for row in rows]
            self._results.samples(subject, "generated tokens", rates, "1/s", note=self._note)
            first = [row["first_token"] for row in rows if row["first_token"] is not None]
            if first:
                self._results.samples(subject, "time to first token", first, "s", note=self._note)
            if case in dense:
                ratios = [dense[case] / each for each in seconds]
                self._results.samples(subject, "speed over dense", ratios, "ratio", note=self._note)
            if rows[0]["extra_gib"] is not None:
                extra = max(row["extra_gib"] for row in rows)
                self._results.number(subject, "extra memory", extra, "GiB", note=self._note)

    def _saved(self, plan: HeadPlan, name: str) -> str:
        """Saves a plan, and returns its path."""
        plan.save(self._place / name)
        return str(self._place / name)

    def _run(self, part: str, plan: str | None, model: Path) -> list[Any]:
        """Runs an engine in a process of its own, and returns what it measured.

        Raises:
            SubprocessError: the engine failed, or took too long.
        """
        small = part == "answers"
        tokens = [2048] if small or part == "text" else self._asked.tokens
        images = [max(1, round(each / IMAGE_TOKENS)) for each in tokens]
        longest = 2048 if small else max(images) * IMAGE_TOKENS + 2048
        settings = {
            "part": part.replace("-", " "),
            "model": str(model),
            "load_format": "auto" if small else "dummy",
            "plan": plan,
            "prompts": images,
            "images": 16 if small else max(images),
            "longest": longest,
            "chunk": self._asked.chunk or longest,
            "requests": self._asked.requests,
            "repetitions": self._asked.repetitions,
            "questions": self._asked.questions,
            "pictures": self._asked.pictures,
            "eager": self._asked.eager,
            "memory": 0.3 if small else self._asked.memory,
            "ranks": self._asked.ranks,
        }
        (self._place / "settings.json").write_text(json.dumps(settings))
        result = self._place / "result.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("vllm_contender.py"))]
        subprocess.run(
            [*command, str(self._place / "settings.json"), str(result)],
            check=True,
            timeout=60 * self._asked.minutes,
            env=with_entry_point(self._place / "site"),
        )
        return json.loads(result.read_text())


def big_model(folder: Path) -> Path:
    """Makes the folder of a model of Qwen2.5-VL-7B's shape, with the small vision tower."""
    from photomask.zoo.picture_questions.loading import FOLDER as MODEL

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    text.update(SHAPE, layer_types=["full_attention"] * SHAPE["num_hidden_layers"])
    text["rope_parameters"]["mrope_section"] = [16, 24, 24]
    config["vision_config"]["out_hidden_size"] = SHAPE["hidden_size"]
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor.pop("size", None)
    # vLLM wants chunks that hold the largest image that the processor allows.
    processor.update(min_pixels=16, max_pixels=2 * 144 * 144)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def dense_plan_of(folder: Path) -> HeadPlan:
    """Returns a dense plan of a model whose weights are made when it is loaded."""
    from transformers import AutoConfig

    facts = architecture_of(AutoConfig.from_pretrained(folder), "the model")
    return HeadPlan.uniform(ModelIdentity(**facts, fingerprint="0" * 64), Pattern.DENSE)


def no_dense(plan: HeadPlan) -> HeadPlan:
    """Returns a plan whose heads take turns among the sparse patterns."""
    sparse = [Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK]
    row = [sparse[head % 3] for head in range(plan.model.heads)]
    return plan.with_patterns([row] * plan.model.layers)


def with_entry_point(folder: Path) -> dict[str, str]:
    """Returns an environment in which vLLM finds the plug-in, although it is not installed."""
    described = folder / "photomask-0.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: photomask\nVersion: 0\n")
    (described / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nphotomask = photomask.attention.vllm:register\n"
    )
    source = Path(__file__).parents[1] / "src"
    known = os.environ.get("PYTHONPATH")
    paths = [str(source), *([known] if known else []), str(folder)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _medians(found: Sequence[Any]) -> dict[tuple[int, int], float]:
    """Returns the median seconds by images and requests."""
    times: dict[tuple[int, int], list[float]] = {}
    for row in found:
        times.setdefault((row["images"], row["requests"]), []).append(row["seconds"])
    return {case: statistics.median(each) for case, each in times.items()}


if __name__ == "__main__":
    sys.exit(main())
