"""Does a real ImageNet network stay itself in integers, beside its peers?

MobileNetV2 with its ImageNet weights, on crops of photographs that have no labels: how often the
integer network names the same class as the float one, and the signal-to-noise ratio of its scores.
"""

import argparse

import torch

from comparison import Comparison
from networks import images_for
from peers import BREVITAS, ONNXRUNTIME, PEERS, TORCHAO
from photomask import zoo
from rows import Results

NETWORK = "mobilenet_v2"
ALL = (*ONNXRUNTIME, *TORCHAO, *BREVITAS)
RECIPES = ("w8a8", "w8a8-minmax")


def main() -> None:
    """Measures ours and the peers in one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=512, help="test crops")
    parser.add_argument("--calibration", type=int, default=64, help="calibration crops")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="*", default=[p.name for p in ALL])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    comparison = Comparison(
        Results(NETWORK),
        NETWORK,
        NETWORK,
        zoo.load(NETWORK),
        calibration=images_for(NETWORK, arguments.calibration),
        images=images_for(NETWORK, arguments.crops, seed=1),
    )
    for recipe in RECIPES:
        comparison.ours(recipe)
    for name in arguments.peers:
        comparison.peer(PEERS[name])


if __name__ == "__main__":
    main()
