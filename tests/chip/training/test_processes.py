"""Two processes, on the CPU or on two GPUs, against one with the same batches."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.chip.training.learning import SHORT, prepared_model, task

from photomask.chip.training import load_weights, train
from photomask.chip.training.processes import find_processes
from photomask.errors import MissingDependencyError, UsageError

WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
torch.backends.cudnn.allow_tf32 = False
from tests.chip.training.learning import SHORT, prepared_model, task
from photomask.chip.training import is_first_process, save_weights, train
prepared = prepared_model()
if not is_first_process():
    with torch.no_grad():
        next(prepared.parameters()).add_(1.0)  # the first process's weights count
report = train(prepared, task(), SHORT)
assert report.processes == 2
save_weights(prepared, Path(sys.argv[1]) / ("first" if is_first_process() else "second"))
"""


TWO_GPUS = (
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=TWO_GPUS)])
def test_two_processes_train_as_one_does(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("accelerate")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": str(device == "cpu").lower(),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=240)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    alone, first, second = (prepared_model() for _ in range(3))
    train(alone, task(), SHORT, device=device)
    load_weights(first, tmp_path / "first")
    load_weights(second, tmp_path / "second")
    states = [prepared.state_dict() for prepared in (alone, first, second)]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], states[2][name]), name
        if name == "standing.record":
            continue  # a checksum of weights that are equal up to rounding
        assert torch.allclose(states[1][name].double(), value.double(), atol=1e-4), name


def test_many_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="launcher chooses"):
        find_processes(device="cpu")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match=r"photomask\[training\]"):
        find_processes()


def test_a_device_that_is_not_there_is_refused():
    for device in ("cuda:77", "abacus"):
        with pytest.raises(UsageError, match="cannot train on"):
            find_processes(device=device)
