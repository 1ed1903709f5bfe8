"""What does a head plan cost in answers, and how much attention does it save?

The shipped vision-language model answers held-out questions over 16 pictures: dense, with plans of
several budgets, and with plans that are voted for as BlindSight does. Each plan runs as it would
for a user. Rows: density, accuracy of each task, their mean, and what the worst task loses.
"""

import argparse
import sys

import torch

from photomask.attention import (
    AttentionStatistics,
    HeadPlan,
    Pattern,
    calibrate,
    encode,
    plan,
    plan_by_votes,
)
from photomask.attention.plugin import attach
from photomask.attention.verification.evaluation import (
    Answers,
    answer_all,
    compare_tasks,
    divergences,
    lost_output,
)
from photomask.attention.verification.proof import CountingHandler, LiteralHandler
from photomask.report import without_progress
from photomask.zoo import picture_questions
from rows import Results, Subject

NETWORK = "picture-questions"
BUDGETS = (0.02, 0.04, 0.05, 0.06, 0.1, 1.0)
ALPHAS = (0.2, 0.4)
CALIBRATION_PROMPTS = 48


def main() -> int:
    """Calibrates, then answers the questions under every plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=200, help="of each task")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--only", help="answer under the plan of this name only")
    parser.add_argument("--share", default="0/1", help="i/n: answer under every n-th plan only")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    model, processor = picture_questions.load_vision_language()
    model = model.to(arguments.device)
    statistics = calibrate(
        model, processor, picture_questions.calibration_prompts(CALIBRATION_PROMPTS)
    )
    prompts = picture_questions.held_out_prompts(
        arguments.questions, pictures=arguments.pictures, seed=arguments.seed
    )
    encoded = [encode(processor, prompt, arguments.device) for prompt in prompts]
    dense = answer_all(model, encoded, without_progress, "")
    results = Results("head_plans")
    cuda = arguments.device.startswith("cuda")
    device = torch.cuda.get_device_name() if cuda else None
    network = f"{NETWORK}, seed {arguments.seed}"
    note = f"{len(prompts)} questions over {arguments.pictures} pictures"
    first, step = map(int, arguments.share.split("/"))
    for name, candidate in list(candidates(statistics).items())[first::step]:
        if arguments.only not in (None, name):
            continue
        if not runs_as_planned(model, candidate, encoded[:2]):
            print(f"{name}: what runs is not what was planned; no figure", file=sys.stderr)
            return 1
        counting = CountingHandler(candidate)
        sparse = answer_all(attach(model, counting), encoded, without_progress, "")
        subject = Subject("head_plans", name, network, device=device)
        report(results, subject, prompts, (dense, sparse), counting.density, note)
    return 0


def candidates(statistics: AttentionStatistics) -> dict[str, HeadPlan]:
    """Returns the plans to compare, by name."""
    plans = {"dense": HeadPlan.uniform(statistics.model, Pattern.DENSE)}
    plans |= {f"budget {budget:g}": plan(statistics, budget=budget) for budget in BUDGETS}
    plans |= {f"votes, alpha {alpha:g}": plan_by_votes(statistics, alpha=alpha) for alpha in ALPHAS}
    return plans


def runs_as_planned(model: torch.nn.Module, candidate: HeadPlan, encoded: list) -> bool:
    """Compares what runs with the plan's masks written out."""
    running = answer_all(attach(model, CountingHandler(candidate)), encoded, without_progress, "")
    literal = answer_all(attach(model, LiteralHandler(candidate)), encoded, without_progress, "")
    return lost_output(literal, running) < 1e-3


def report(
    results: Results,
    subject: Subject,
    prompts: list,
    answers: tuple[Answers, Answers],
    density: float,
    note: str,
) -> None:
    """Writes the rows of one plan."""
    dense, sparse = answers
    tasks = compare_tasks(prompts, dense, sparse)
    results.number(subject, "density", 100 * density, "%", note=note)
    results.number(subject, "lost output", lost_output(dense, sparse), "", note=note)
    results.number(subject, "divergence", float(divergences(dense, sparse).mean()), "nats")
    mean = sum(task.sparse_accuracy for task in tasks) / len(tasks)
    loss = sum(task.loss for task in tasks) / len(tasks)
    worst = max(tasks, key=lambda task: task.loss)
    results.number(subject, "accuracy", mean, "%", note=note)
    results.number(subject, "accuracy lost", loss, "points", note=note)
    low, high = worst.loss_interval
    results.number(
        subject,
        "worst task loses",
        worst.loss,
        "points",
        note=f"{worst.task}, 95 % interval {low:.1f} to {high:.1f}, p {worst.p_value:.2f}",
    )
    for task in tasks:
        results.number(subject, f"accuracy, {task.task}", task.sparse_accuracy, "%", note=note)


if __name__ == "__main__":
    raise SystemExit(main())
