"""Does the torch engine compute the oracle's integers, on every edge of the zoo's networks?"""

import argparse
import sys

import torch

from networks import images_for
from ours import count_mismatches, make_program
from photomask import zoo
from photomask.errors import MissingDependencyError
from rows import Results, Subject

WHAT = "exactness"


def main() -> int:
    """Compares the engines; the exit status is 1 if an integer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=zoo.names(), choices=zoo.names())
    parser.add_argument("--recipes", nargs="*", default=["w8a8"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4, help="images at a time")
    parser.add_argument("--device", default="cpu", help="of the torch engine")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else None
    results = Results(WHAT)
    different = 0
    for network in arguments.networks:
        try:
            model = zoo.load(network)
        except MissingDependencyError as error:
            results.skipped(Subject(WHAT, "photomask", network), str(error))
            continue
        calibration = images_for(network, arguments.calibration)
        images = images_for(network, arguments.images, seed=1)
        for recipe in arguments.recipes:
            program = make_program(model, recipe, calibration)
            integers, mismatches = count_mismatches(
                program, images, device=arguments.device, batch=arguments.batch
            )
            subject = Subject(WHAT, f"photomask {recipe}", network, device=device)
            note = f"{len(images)} images, {len(program.edges)} edges"
            results.number(subject, "integers", integers, "integers", note=note)
            results.number(subject, "mismatches", mismatches, "integers", note=note)
            different += mismatches
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
