"""Two processes that pre-train together hold the same weights at the end."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

WORKER = """
import sys
import safetensors.torch
import torch
torch.set_num_threads(1)
from tests.chip.pretraining.tiny import SHORT, VIEWS, WIDTHS, encoder, images
from photomask.chip.pretraining import BarlowTwins, pretrain
from photomask.chip.training import is_first_process
first = is_first_process()
module = encoder(3 if first else 4)  # the first process's weights count
report = pretrain(
    module, images(), SHORT, BarlowTwins(), augment=VIEWS, projector_widths=WIDTHS
)
assert report.processes == 2
safetensors.torch.save_file(module.state_dict(), f"{sys.argv[1]}/{'first' if first else 'second'}")
"""


def test_two_processes_end_with_the_same_weights(tmp_path: Path):
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=120)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    first, second = (safetensors.torch.load_file(tmp_path / name) for name in ("first", "second"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
