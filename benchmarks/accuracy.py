"""How many test images does the integer network still name rightly, beside its peers?

Fashion-MNIST, all 10,000 test images; everyone starts from the same float network and calibrates
on the same images.
"""

import argparse

import torch

from comparison import Comparison
from peers import BREVITAS, ONNXRUNTIME, TORCHAO
from photomask import zoo
from rows import Results

WHAT = "accuracy"
NETWORKS = ("resnet20", "mobilenet_v1")
RECIPES = ("w8a8", "w8a8-minmax", "w4a8", "w4a8-group", "w4a4")
PEERS = (*ONNXRUNTIME, *TORCHAO, *BREVITAS)


def main() -> None:
    """Measures the integer programs and the peers, one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--calibration", type=int, default=512, help="calibration images")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, labels = zoo.test_set()
    results = Results(WHAT)
    for network in arguments.networks:
        comparison = Comparison(
            results,
            WHAT,
            network,
            zoo.load(network),
            calibration=zoo.calibration_set(arguments.calibration)[0],
            images=images[: arguments.images],
            labels=labels[: arguments.images],
            batch=250,
        )
        for recipe in arguments.recipes:
            comparison.ours(recipe)
        for peer in PEERS:
            comparison.peer(peer)


if __name__ == "__main__":
    main()
