"""Which networks that nobody wrote a line for become verified integer programs?

Networks of timm with random weights: float model to integer program, the torch engine against the
oracle on every edge, and the signal-to-noise ratio of the scores.
"""

import argparse
import gc
import sys
import time

import torch
from torch import Tensor, nn

from networks import TIMM_MODELS, timm_model
from ours import as_network, count_mismatches, float_network, make_program
from photomask import zoo
from photomask.errors import MissingDependencyError, PhotomaskError
from photomask.report import NoiseMeter
from rows import Results, Subject

WHAT = "generality"
OTHERS = (
    "resnet10t",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "dla34",
    "hardcorenas_a",
    "mobilenetv3_small_100",
    "mnasnet_100",
    "fbnetc_100",
    "spnasnet_100",
    "semnasnet_075",
    "efficientnet_b0",
    "ghostnet_100",
    "repvgg_a0",
    "regnety_002",
    "tf_efficientnet_lite1",
    "cspresnet50",
    "darknet53",
    "selecsls42b",
    "hrnet_w18_small",
    "res2net50_26w_4s",
    "inception_v3",
    "xception41",
    "vovnet39a",
    "resnetv2_50",
    "lcnet_050",
    "tinynet_e",
)


def main() -> int:
    """Converts every network; the exit status is 1 if one of the named eight does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=TIMM_MODELS)
    parser.add_argument("--others", action="store_true", help="try further networks of timm")
    parser.add_argument("--recipe", default="w8a8-minmax")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--images", type=int, default=16, help="for the signal-to-noise ratio")
    parser.add_argument("--gate-images", type=int, default=1, help="for engine and oracle")
    parser.add_argument(
        "--statistics", action="store_true", help="give batch norms the statistics of photographs"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = Results(WHAT)
    calibration = zoo.photograph_crops(arguments.calibration, size=arguments.size)
    images = zoo.photograph_crops(arguments.images, size=arguments.size, seed=1)
    passed = True
    for name in (*arguments.models, *(OTHERS if arguments.others else ())):
        converted = measure(results, name, calibration, images, arguments)
        passed &= converted or name not in TIMM_MODELS
        gc.collect()
    return int(not passed)


def measure(
    results: Results,
    name: str,
    calibration: Tensor,
    images: Tensor,
    arguments: argparse.Namespace,
) -> bool:
    """Converts and verifies one network; tells whether nothing was wrong."""
    subject = Subject(WHAT, f"photomask {arguments.recipe}", name)
    try:
        model = timm_model(name)
        if arguments.statistics:
            with_statistics(model, calibration)
    except MissingDependencyError as error:
        results.skipped(subject, str(error))
        return True
    except RuntimeError as error:
        results.skipped(subject, f"timm: {type(error).__name__}: {error}")
        return False
    start = time.perf_counter()
    try:
        program = make_program(model, arguments.recipe, calibration, batch=8)
    except PhotomaskError as error:
        results.skipped(subject, f"{type(error).__name__}: {error}")
        return False
    seconds = time.perf_counter() - start
    integers, mismatches = count_mismatches(program, images[: arguments.gate_images], batch=1)
    noise = NoiseMeter()
    reference = float_network(model)
    run = as_network(program)
    for part in images.split(8):
        noise.add(reference(part), run(part))
    note = f"{arguments.size}x{arguments.size}, {len(calibration)} for calibration"
    if arguments.statistics:
        note += ", batch norms with statistics"
    results.number(subject, "steps", len(program.steps), "steps", note=note)
    results.number(subject, "integers", integers, "integers", note=note)
    results.number(subject, "mismatches", mismatches, "integers", note=note)
    results.number(subject, "sqnr", noise.sqnr_db, "dB", note=note)
    results.number(subject, "conversion", seconds, "s", note=note)
    return mismatches == 0


def with_statistics(model: nn.Module, images: Tensor) -> None:
    """Gives batch norms the statistics of images, so that signals keep their size."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain average over the batches
        norm.reset_running_stats()
    with torch.no_grad():
        for part in images.split(8):
            model(part)
    model.eval()


if __name__ == "__main__":
    sys.exit(main())
