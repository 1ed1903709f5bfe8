"""A model without channels goes through the whole pipeline as any other."""

import torch
from tests.chip.channel_pruning.zeroing import randomized

from photomask.chip import calibrate, convert, load_target, prepare, verify
from photomask.chip.channel_pruning import remove_channels
from photomask.chip.training import TensorData, TrainingSettings, keep_batch_norms, train
from photomask.zoo.models import ResNet


def test_a_smaller_model_is_trained_converted_and_verified():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 8, 8, generator=generator)
    labels = torch.arange(16) % 10
    smaller = remove_channels(randomized(ResNet(1, width=8)), images, 0.5)
    prepared = prepare(smaller, "w8a8", images)
    calibrate(prepared, images)
    keep_batch_norms(prepared, smaller, images)
    settings = TrainingSettings(epochs=1, batch_size=8)
    train(prepared, TensorData(images, labels), settings, teacher=smaller)
    program = convert(prepared, load_target("asic"))
    report = verify(smaller, program, images, labels)
    assert report.samples == 16
    sizes = {
        step.name: program.tensors[step.tensors["weight"]].shape[0]
        for step in program.steps
        if "weight" in step.tensors
    }
    assert list(sizes.values()) == [4, 4, 4, 8, 8, 8, 16, 16, 16, 10]
