r"""Trains a small vision-language model on questions over several Fashion-MNIST pictures.

    python scripts/make_fashion_mnist.py --idx out/idx
    python scripts/train_vlm.py --data out/idx --output out/picture_questions
    python scripts/vlm_card.py out/picture_questions \
        --history out/picture_questions/training.json --accuracy out/accuracy.json

First the vision tower learns to classify single pictures, under a linear classifier that is then
dropped. Then the language model learns to answer, at first about few pictures, later about up to
16; in the last part of this stage the vision tower learns along, slowly. All images stay on the
device, and batches are drawn there. What is written is the exponential moving average of the
weights after the last step of the schedule: the test pictures are looked at once, when training
is over, and choose no checkpoint.

A GPU trains in bfloat16 with `torch.compile`; a CPU in float32. With `--budget-seconds`, schedules
follow the clock and end in time. `--resume` starts from the `state.safetensors` of a former run.
"""

import argparse
import copy
import json
import math
import platform
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

import train_zoo
from photomask.zoo import fashion_mnist
from photomask.zoo.picture_questions import load_vision_language, questions
from vlm_batches import (
    IGNORED,
    SLOTS,
    PicturesByLabel,
    Vocabulary,
    draw_batch,
    make_layout,
    to_device,
)
from vlm_forward import FastModel
from vlm_model import make_model, make_tokenizer, save_checkpoint

AUGMENTATION = {
    "vision": train_zoo.Schedule(padding_pixels=2, erasing_probability=0.4),
    "language": train_zoo.Schedule(padding_pixels=2, erasing_probability=0.2),
}


@dataclass
class Clock:
    """Tells how far a stage has come: by steps, or by time where that is further."""

    steps: int
    seconds: float
    start: float = 0.0
    step: int = 0

    def progress(self) -> float:
        """Returns the part that is done, 0..1."""
        elapsed = (time.perf_counter() - self.start) / self.seconds
        return min(1.0, max(self.step / self.steps, elapsed))

    def rate(self, peak: float, warmup: int) -> float:
        """Returns the learning rate: linear growth, then a cosine to zero."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress()))
        return peak * min(1.0, (self.step + 1) / warmup) * cosine


class Trainer:
    """Parameters, their optimizer and their moving average."""

    def __init__(self, groups: list[dict], clock: Clock, warmup: int, average_decay: float):
        self.clock = clock
        self.warmup = warmup
        self.average_decay = average_decay
        split = []
        for group in groups:
            for dense in (True, False):
                chosen = [p for p in group["params"] if (p.ndim > 1) == dense]
                decay = 0.05 if dense else 0.0
                split.append({"params": chosen, "peak": group["lr"], "weight_decay": decay})
        self.parameters = [p for group in groups for p in group["params"]]
        fused = self.parameters[0].is_cuda
        self.optimizer = torch.optim.AdamW(split, lr=0.0, betas=(0.9, 0.98), fused=fused)
        self.averages = [p.detach().clone() for p in self.parameters]

    def update(self, loss: Tensor) -> None:
        """Takes one step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.clock.rate(group["peak"], self.warmup)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.clock.step += 1
        decay = min(self.average_decay, self.clock.step / (self.clock.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @torch.no_grad()
    def use_averages(self) -> None:
        """Puts the averages in the place of the parameters."""
        torch._foreach_copy_(self.parameters, self.averages)


def train_vision(
    fast: FastModel, images: Tensor, labels: Tensor, clock: Clock, batch: int = 512
) -> None:
    """Teaches the vision tower to classify pictures."""
    config = fast.model.config.vision_config
    classifier = nn.Linear(config.out_hidden_size, len(questions.KINDS)).to(images.device)
    parameters = [*fast.visual.parameters(), *classifier.parameters()]
    trainer = Trainer([{"params": parameters, "lr": 2e-3}], clock, 300, 0.999)
    clock.start = time.perf_counter()
    epoch = 0
    while clock.progress() < 1:
        order = torch.randperm(len(images), device=images.device)
        augmented = train_zoo.augment(images[order], AUGMENTATION["vision"])
        total, steps = torch.zeros((), device=images.device), len(images) // batch
        order, kept = labels[order], steps * batch
        parts = zip(augmented[:kept].split(batch), order[:kept].split(batch), strict=True)
        for part, right in parts:
            logits = classifier(fast.see(part).float().mean(1))
            loss = nn.functional.cross_entropy(logits, right, label_smoothing=0.1)
            total += loss.detach()
            trainer.update(loss)
            if clock.progress() >= 1:
                break
        epoch += 1
        if epoch <= 3 or epoch % 10 == 0 or clock.progress() >= 1:
            seconds = time.perf_counter() - clock.start
            print(f"vision epoch {epoch}: loss {total.item() / steps:.4f}, {seconds:.0f} s")
    trainer.use_averages()
    accuracy = [_classified(fast, classifier, x, y) for x, y in [(images, labels), _test(images)]]
    print(f"vision: {accuracy[0]:.2f} % of training, {accuracy[1]:.2f} % of test pictures")
    with torch.no_grad():  # the language model starts with small embeddings
        scale = 0.2 / fast.see(images[:1000]).float().square().mean().sqrt()
        for parameter in fast.visual.merger.mlp[2].parameters():
            parameter *= scale


def _test(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the test set, in a trial as few pictures as are trained on."""
    test_images, test_labels = (tensor[: len(images)] for tensor in fashion_mnist.test_set())
    return test_images.to(images.device), test_labels.to(images.device)


@torch.no_grad()
def _classified(fast: FastModel, classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    right = 0
    for part, expected in zip(images.split(1000), labels.split(1000), strict=True):
        right += int((classifier(fast.see(part).float().mean(1)).argmax(1) == expected).sum())
    return 100 * right / len(images)


class Language:
    """The second stage: questions and answers."""

    def __init__(self, fast: FastModel, tokenizer: object, tokens_per_step: int):
        self.fast, self.tokens_per_step = fast, tokens_per_step
        self.device = fast.model.device
        self.vocabulary = Vocabulary(tokenizer, self.device)
        self.layouts = {
            pictures: to_device(make_layout(tokenizer, pictures, SLOTS), self.device)
            for pictures in range(questions.LEAST_PICTURES, questions.MOST_PICTURES + 1)
        }

    def run(
        self, source: PicturesByLabel, pictures: int, see_gradient: bool, augmented: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws a batch and answers it; returns both kinds of logits and the right answers."""
        layout = self.layouts[pictures]
        count = max(2, self.tokens_per_step // len(layout.tokens))
        tokens, labels, answers = draw_batch(layout, count, pictures, self.vocabulary)
        images = source.draw(labels)
        if augmented:
            images = train_zoo.augment(images, AUGMENTATION["language"])
        with torch.set_grad_enabled(see_gradient):
            seen = self.fast.see(images)
        return *self.fast.answer(tokens, seen, layout), answers

    def train(self, source: PicturesByLabel, clock: Clock, options: argparse.Namespace) -> None:
        """Teaches the model to answer."""
        model = self.fast.model
        groups = [
            {"params": list(model.model.language_model.parameters()), "lr": options.rate},
            {"params": list(model.model.visual.parameters()), "lr": options.rate * 0.1},
        ]
        trainer = Trainer(groups, clock, 200, 0.999)
        for parameter in model.model.visual.parameters():
            parameter.grad = torch.zeros_like(parameter)
        chooser = Random(options.seed)
        clock.start = time.perf_counter()
        record, printed = torch.zeros(len(questions.TASKS) + 1, device=self.device), 0
        while clock.progress() < 1:
            progress = clock.progress()
            most = 4 + 12 * min(1.0, progress / options.growth) if options.growth else 16
            pictures = chooser.randint(questions.LEAST_PICTURES, int(most))
            first, second, answers = self.run(
                source, pictures, progress > options.vision_from, augmented=True
            )
            loss, right = self._score(first, second, answers)
            record += torch.cat((loss.detach()[None], right))
            trainer.update(loss)
            if clock.step % 250 == 0 or clock.progress() >= 1:
                values = (record / (clock.step - printed)).tolist()
                printed, record = clock.step, record * 0
                _report(clock, int(most), values)
        trainer.use_averages()

    def _score(self, first: Tensor, second: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss, every task weighing the same, and the share of right answers."""
        losses = nn.functional.cross_entropy(
            first.flatten(0, 1), answers.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(answers.shape)
        valid, hits = answers != IGNORED, first.argmax(-1) == answers
        means, rights = [], []
        for task in questions.TASKS:
            chosen = [index for index, name in enumerate(SLOTS) if name == task]
            number = valid[:, chosen].sum().clamp(min=1)
            means.append(losses[:, chosen].sum() / number)
            rights.append((hits & valid)[:, chosen].sum() / number)
        ends = torch.full_like(answers, self.vocabulary.end)
        end_loss = nn.functional.cross_entropy(second.flatten(0, 1), ends.flatten())
        return torch.stack(means).mean() + 0.1 * end_loss, torch.stack(rights).detach()

    @torch.no_grad()
    def evaluate(self, source: PicturesByLabel, batches: int) -> dict[int, dict[str, float]]:
        """Returns the percentage of right answers for numbers of pictures and tasks."""
        results = {}
        for pictures in (2, 4, 8, 12, 16):
            total = torch.zeros(len(questions.TASKS), device=self.device)
            for _ in range(batches):
                total += self._score(*self.run(source, pictures, False, False))[1]
            values = (100 * total / batches).tolist()
            results[pictures] = dict(zip(questions.TASKS, values, strict=True))
        return results


def _report(clock: Clock, most: int, values: list[float]) -> None:
    seconds = time.perf_counter() - clock.start
    tasks = zip(questions.TASKS, values[1:], strict=True)
    shares = " ".join(f"{task} {100 * value:.1f}" for task, value in tasks)
    print(f"step {clock.step}, {seconds:.0f} s, <= {most} pictures: loss {values[0]:.3f}  {shares}")


@torch.no_grad()
def check_forward(model: object, tokenizer: object) -> None:
    """Compares the fast forward pass with transformers' own on prompts, in float32.

    Raises:
        SystemExit: they differ.
    """
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(copy.deepcopy(model).cpu(), tokenizer, Path(folder))
        plain, processor = load_vision_language(Path(folder))
    fast = FastModel(plain, torch.float32, compiled=False)
    for prompt in questions.held_out_prompts(1, pictures=3):
        text = processor.apply_chat_template(prompt.messages(), add_generation_prompt=True)
        inputs = processor(text=[text], images=prompt.images(), return_tensors="pt")
        expected = plain(**inputs).logits[0, -1]
        layout = make_layout(tokenizer, 3, ("name", prompt.task, "order"))
        tokens, ids = layout.tokens.clone(), inputs["input_ids"][0]
        answer, length = int(layout.answers[1]), len(ids) - layout.prefix
        tokens[: layout.prefix], tokens[answer - length : answer] = (
            ids[: layout.prefix], ids[layout.prefix :],
        )  # fmt: skip
        images = torch.stack([fashion_image(picture) for picture in prompt.images()])
        seen = fast.see(images)
        features = plain.model.visual(inputs["pixel_values"], inputs["image_grid_thw"])
        difference = features.pooler_output - seen.flatten(0, 1)
        worst = max(worst, difference.abs().max().item())
        logits, _ = fast.answer(tokens[None], seen, layout)
        worst = max(worst, (logits[0, 1] - expected).abs().max().item())
    print(f"largest difference between the fast forward pass and transformers': {worst:.1e}")
    if worst > 1e-4:
        raise SystemExit("the fast forward pass is not equal to transformers'")


def fashion_image(picture: object) -> Tensor:
    """Turns a PIL picture into the normalised image [1, 28, 28] of `fashion_mnist`."""
    import numpy as np

    return fashion_mnist.normalise(np.asarray(picture)[None, :, :, 0].copy())[0]


def main() -> None:
    """Parses the arguments, trains, and writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx .gz files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vision-epochs", type=int, default=150)
    parser.add_argument("--steps", type=int, default=12000, help="of the second stage")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate of these")
    parser.add_argument("--growth", type=float, default=0.35, help="part until 16 pictures")
    parser.add_argument(
        "--vision-from", type=float, default=0.6, help="when the tower learns along"
    )
    parser.add_argument("--tokens", type=int, default=65536, help="per step")
    parser.add_argument("--budget-seconds", type=float, default=math.inf)
    parser.add_argument("--vision-seconds", type=float, default=math.inf)
    parser.add_argument("--resume", type=Path, help="state.safetensors; skips the first stage")
    parser.add_argument("--images", type=int, help="train on the first images only, as a trial")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch._dynamo.config.recompile_limit = 64
    images, labels = fashion_mnist.training_set(options.data)
    images, labels = images[: options.images].to(device), labels[: options.images].to(device)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    check_forward(model, tokenizer)
    if options.resume:
        model.load_state_dict(safetensors.torch.load_file(options.resume), strict=False)
        model.tie_weights()
    model.to(device)
    cuda = device.type == "cuda"
    fast = FastModel(model, torch.bfloat16 if cuda else torch.float32, compiled=cuda)
    if not options.resume:
        clock = Clock(options.vision_epochs * (len(images) // 512), options.vision_seconds)
        train_vision(fast, images, labels, clock)
        write_state(model, options.output)
    left = options.budget_seconds - (time.perf_counter() - begin)
    clock = Clock(options.steps, max(left, 1.0))
    language = Language(fast, tokenizer, options.tokens)
    language.train(PicturesByLabel(images, labels), clock, options)
    write_state(model, options.output)
    results = language.evaluate(PicturesByLabel(*_test(images)), 8 if cuda else 1)
    for pictures, tasks in results.items():
        print(pictures, "pictures:", {task: round(value, 1) for task, value in tasks.items()})
    save_checkpoint(model.cpu(), tokenizer, options.output)
    write_history(options, clock.step, time.perf_counter() - begin)


def write_history(options: argparse.Namespace, steps: int, seconds: float) -> None:
    """Writes the runs that led to the weights, this one last, for the model card."""
    runs = []
    if options.resume and (earlier := options.resume.parent / "training.json").is_file():
        runs = json.loads(earlier.read_text(encoding="utf-8"))
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU ({platform.machine()})"
    libraries = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    options.steps = steps
    arguments = " ".join(
        f"--{key.replace('_', '-')} {value}"
        for key, value in vars(options).items()
        if value is not None and value != math.inf
    )
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    run = {"date": date, "seconds": round(seconds), "device": f"{device} ({libraries})"}
    runs.append({**run, "arguments": arguments})
    text = json.dumps(runs, indent=2) + "\n"
    (options.output / "training.json").write_text(text, encoding="utf-8")


def write_state(model: nn.Module, folder: Path) -> None:
    """Writes the weights as float32, to go on from."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    safetensors.torch.save_file(state, folder / "state.safetensors")


if __name__ == "__main__":
    main()
