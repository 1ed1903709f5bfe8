import copy
from pathlib import Path

import pytest
import torch
from tests.chip.pretraining.tiny import (
    SHORT,
    VIEWS,
    WIDTHS,
    assert_equal,
    encoder,
    images,
    state_of,
)
from tests.chip.training.learning import task
from torch import Tensor, nn

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.pretraining import (
    BarlowTwins,
    CrossDistillation,
    Method,
    VICReg,
    fine_tune,
    pretrain,
)
from photomask.chip.training import Schedule, TensorData, TrainingReport
from photomask.errors import DataError, TrainingError, UsageError


def schedule(**changes: object) -> Schedule:
    return Schedule.model_validate(SHORT.model_dump() | changes)


def run(module: nn.Module, settings: Schedule = SHORT, **more: object) -> TrainingReport:
    arguments = {"augment": VIEWS, "projector_widths": WIDTHS, "device": "cpu"} | more
    method = arguments.pop("method", BarlowTwins())
    data = arguments.pop("data", images())
    return pretrain(module, data, settings, method, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "method",
    [BarlowTwins(), VICReg(), CrossDistillation(encoder(7))],
    ids=["barlow", "vicreg", "xd"],
)
def test_each_method_lowers_its_loss_without_labels(method: Method):
    module = encoder()
    before = state_of(module)
    report = run(module, schedule(epochs=6), method=method)
    assert report.epochs[-1].loss < 0.9 * report.epochs[0].loss
    assert repr(method) in report.recipe
    assert "–" in str(report)
    assert not module.training
    assert not torch.equal(module.state_dict()["body.stem.0.weight"], before["body.stem.0.weight"])


def test_a_users_own_method_is_a_class_of_one_function():
    class Correlated(Method):
        def loss(self, first: Tensor, second: Tensor) -> Tensor:
            first, second = (x - x.mean(dim=0) for x in (first, second))
            return 1 - nn.functional.cosine_similarity(first, second, dim=0).mean()

    report = run(encoder(), schedule(epochs=6), method=Correlated())
    assert report.epochs[-1].loss < report.epochs[0].loss


def test_labels_make_no_difference():
    models = [encoder() for _ in range(2)]
    run(models[0], data=images())
    run(models[1], data=task())
    assert_equal(models[0], models[1])


def test_the_same_seed_gives_the_same_bits_and_leaves_the_random_state_alone():
    models = [encoder() for _ in range(3)]
    state = torch.random.get_rng_state()
    run(models[0])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(9)
    run(models[1])
    run(models[2], schedule(seed=1))
    assert_equal(models[0], models[1])
    name = "body.stem.0.weight"
    assert not torch.equal(models[0].state_dict()[name], models[2].state_dict()[name])


class StopError(Exception):
    pass


def stop_after_first(record: object) -> None:
    raise StopError


@pytest.mark.parametrize("method", ["barlow", "xd"])
def test_a_resumed_pre_training_ends_with_the_bits_of_an_uninterrupted_one(
    method: str, tmp_path: Path
):
    def made() -> Method:
        return BarlowTwins() if method == "barlow" else CrossDistillation(encoder(7))

    settings = schedule(epochs=3, average_decay=0.9)
    whole, parts = encoder(), encoder()
    run(whole, settings, method=made())
    with pytest.raises(StopError):
        run(parts, settings, method=made(), checkpoint=tmp_path / "run", observe=stop_after_first)
    resumed = encoder(5)
    run(resumed, settings, method=made(), checkpoint=tmp_path / "run", resume=True)
    assert_equal(whole, resumed)


def test_a_checkpoint_of_another_method_data_or_kind_is_refused(tmp_path: Path):
    run(encoder(), checkpoint=tmp_path / "run")
    again = {"checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(TrainingError, match=r"another training: it was BarlowTwins.*VICReg"):
        run(encoder(), method=VICReg(), **again)
    with pytest.raises(TrainingError, match="another run: data is"):
        run(encoder(), augment=lambda x: x + torch.rand_like(x), **again)
    with pytest.raises(TrainingError, match="another training"):
        run(encoder(), projector_widths=(8, 8), **again)
    with pytest.raises(UsageError, match="holds a training already"):
        run(encoder(), checkpoint=tmp_path / "run")


def test_batches_that_hold_two_views_need_no_augmentation():
    generator = torch.Generator().manual_seed(1)
    views = [images() + 0.1 * torch.randn(64, 1, 8, 8, generator=generator) for _ in range(2)]
    batches = list(zip(views[0].split(16), views[1].split(16), strict=True))
    module = encoder()
    report = run(module, schedule(epochs=4), data=batches, augment=None)
    assert report.epochs[-1].loss < report.epochs[0].loss
    run(encoder(), data=TensorData(views), augment=None)


def test_data_without_two_views_is_refused():
    for data in (images(), list(images().split(16)), task()):
        with pytest.raises(DataError, match=r"two views of each sample; give augment"):
            run(encoder(), data=data, augment=None)


def test_a_batch_of_one_is_refused():
    with pytest.raises(DataError, match="a batch of one sample has no variance"):
        run(encoder(), schedule(batch_size=1))
    with pytest.raises(DataError, match="a batch of one sample has no variance"):
        run(encoder(), data=[images()[:16], images()[:16], images()[:1]])


def test_what_returns_no_features_is_refused():
    whole = nn.Conv2d(1, 4, 3)
    with pytest.raises(UsageError, match=r"must return features.*\[2, 4, 6, 6\]"):
        run(whole)
    with pytest.raises(UsageError, match="cannot compute with samples of the shape"):
        run(nn.Linear(5, 4))
    with pytest.raises(UsageError, match="no parameters"):
        run(nn.Flatten())
    with pytest.raises(UsageError, match="two outputs or more"):
        run(encoder(), projector_widths=(8, 1))
    with pytest.raises(DataError, match="at least one batch"):
        run(encoder(), data=[])
    with pytest.raises(UsageError, match="host of the method cannot compute"):
        run(encoder(), method=CrossDistillation(nn.Linear(5, 4)))


class Distance(Method):
    """Only the distance of the views, so that the same embedding for all is the best."""

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).square().mean()


def test_collapsed_embeddings_end_the_training_and_restore_the_encoder():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), 4)

    constant = Constant()
    with pytest.raises(TrainingError, match=r"collapsed: 16 of 16 dimensions are the same"):
        run(constant, method=Distance())
    assert torch.equal(constant.bias, torch.ones(4))
    with pytest.raises(TrainingError, match=r"step 0 the loss is nan; the embeddings have coll"):
        run(Constant(), method=BarlowTwins())


def test_a_loss_that_is_not_finite_names_step_and_place_and_restores_the_encoder():
    class Breaks(Method):
        def loss(self, first: Tensor, second: Tensor) -> Tensor:
            return (first - second).square().mean() * float("inf")

    module = encoder()
    before = state_of(module)
    with pytest.raises(TrainingError, match=r"in step 0 the loss is inf; .* check the loss"):
        run(module, method=Breaks())
    assert all(torch.equal(x, before[name]) for name, x in state_of(module).items())
    with pytest.raises(TrainingError, match="the first tensor that is not finite is input 0"):
        run(module, augment=lambda x: x / 0)


def test_the_host_learns_too_and_a_frozen_host_only_teaches():
    host = encoder(7)
    before = state_of(host)
    run(encoder(), method=CrossDistillation(host))
    assert not torch.equal(host.state_dict()["body.stem.0.weight"], before["body.stem.0.weight"])
    frozen = encoder(7).requires_grad_(False)
    run(encoder(), method=CrossDistillation(frozen))
    assert torch.equal(frozen.state_dict()["body.stem.0.weight"], before["body.stem.0.weight"])


def test_bfloat16_pre_trains_weights_in_float32():
    module = encoder()
    report = run(module, schedule(epochs=4, bfloat16=True))
    assert report.epochs[-1].loss < report.epochs[0].loss
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_pre_trained_and_fine_tuned_networks_become_integers():
    module, (samples, labels) = encoder(), task()
    run(module)
    model = module.classifier()
    fine_tune(model, (samples, labels), schedule(epochs=3, learning_rate=0.01), device="cpu")
    prepared = prepare(model, load_recipe("w8a8"), samples[:1])
    calibrate(prepared, samples)
    assert convert(prepared, load_target("asic")).steps
    assert copy.deepcopy(model)(samples[:2]).shape == (2, 3)
