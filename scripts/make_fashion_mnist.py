"""Writes the Fashion-MNIST files that the package ships.

    python scripts/make_fashion_mnist.py                     # fetches the Debian package
    python scripts/make_fashion_mnist.py --source FOLDER     # idx files that are already here
    python scripts/make_fashion_mnist.py --idx FOLDER        # also keeps the idx files in FOLDER

The full set comes from the Debian package `dataset-fashion-mnist`, which `apt-get download` and
`dpkg-deb -x` unpack without root rights. Written are all 10,000 test images, and 1,024 training
images for calibration, chosen by `numpy.random.default_rng(0)`. The same source gives the same
bytes.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from photomask.zoo import fashion_mnist

PACKAGE = "dataset-fashion-mnist"
SEED = 0
OUTPUT = Path(__file__).resolve().parent.parent / "src" / "photomask" / "zoo" / "data"


def fetch(folder: Path) -> Path:
    """Unpacks the Debian package under `folder`; returns the folder of its idx files."""
    subprocess.run(["apt-get", "-q", "download", PACKAGE], cwd=folder, check=True)
    archive = next(folder.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    return folder / "usr" / "share" / "datasets" / "fashion-mnist"


def write(source: Path, output: Path) -> None:
    """Writes the two `.npz` files from the idx files in `source`."""
    output.mkdir(parents=True, exist_ok=True)
    pixels = fashion_mnist.read_idx(source / "t10k-images-idx3-ubyte.gz")
    labels = fashion_mnist.read_idx(source / "t10k-labels-idx1-ubyte.gz")
    save(output / "fashion_mnist_test.npz", pixels=pixels, labels=labels)

    pixels = fashion_mnist.read_idx(source / "train-images-idx3-ubyte.gz")
    labels = fashion_mnist.read_idx(source / "train-labels-idx1-ubyte.gz")
    chosen = np.random.default_rng(SEED).permutation(len(pixels))
    chosen = chosen[: fashion_mnist.CALIBRATION_COUNT].astype(np.int32)
    save(
        output / "fashion_mnist_calibration.npz",
        pixels=pixels[chosen],
        labels=labels[chosen],
        training_index=chosen,
    )


def save(path: Path, **arrays: np.ndarray) -> None:
    """Writes one compressed file and says how large it became."""
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Parses the arguments and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder of the four idx .gz files")
    parser.add_argument("--idx", type=Path, help="folder to copy the idx files to")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: the package's data")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.source or fetch(Path(temporary))
        write(source, arguments.output)
        if arguments.idx:
            arguments.idx.mkdir(parents=True, exist_ok=True)
            for file in source.glob("*-ubyte.gz"):
                shutil.copy2(file, arguments.idx)


if __name__ == "__main__":
    main()
