"""Programs in Model Explorer, by its own loader of extensions and its own classes."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Report, verify
from photomask.chip.model_explorer import write_node_data
from photomask.errors import DocumentError, UsageError


@pytest.fixture(scope="module")
def folder(small_program: IntegerProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("program") / "small"
    small_program.save(place)
    return place


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(
        small_network, small_program, small_images, oracle_samples=1, accelerator="reference"
    )


def opened(path: Path) -> dict[str, Any]:
    """Opens a file as Model Explorer does when its page asks for it."""
    managers = pytest.importorskip("model_explorer.extension_manager")
    manager = managers.ExtensionManager(["photomask.chip.model_explorer"])
    manager.load_extensions()
    command = {"cmdId": "convert", "extensionId": "photomask", "modelPath": str(path)}
    return manager.run_cmd({**command, "settings": {}, "deleteAfterConversion": False})


def facts(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in pairs}


def test_the_graph_has_every_input_and_step_with_its_edges(
    folder: Path, small_program: IntegerProgram
):
    (graph,) = opened(folder / "program.json")["graphs"]
    nodes = {node["id"]: node for node in graph["nodes"]}
    names = [f"input {name}" for name in small_program.inputs]
    assert [*nodes] == names + [step.name for step in small_program.steps]
    makers = {step.output: step.name for step in small_program.steps}
    makers |= {name: f"input {name}" for name in small_program.inputs}
    for step in small_program.steps:
        node = nodes[step.name]
        assert node["label"] == step.operator.kind
        assert node["namespace"] == step.node.replace(".", "/")
        assert [edge["sourceNodeId"] for edge in node["incomingEdges"]] == [
            makers[name] for name in step.inputs
        ]
        output = facts(node["outputsMetadata"][0]["attrs"])
        edge = small_program.edges[step.output]
        assert output["tensor_shape"] == f"{edge.format}{list(edge.shape)}"
        assert output["values"] == f"{edge.low} to {edge.high}"
        assert facts(node["attrs"])["source"] == step.source


def test_constants_show_their_ends_where_their_file_lies_beside(
    folder: Path, small_program: IntegerProgram, tmp_path: Path
):
    step = next(s for s in small_program.steps if "multiplier" in s.tensors)
    codes = small_program.parameters(step)["multiplier"]
    (tmp_path / "program.json").write_bytes((folder / "program.json").read_bytes())
    found = []
    for place in (folder, tmp_path):
        (graph,) = opened(place / "program.json")["graphs"]
        node = next(node for node in graph["nodes"] if node["id"] == step.name)
        found.append(facts(node["attrs"])["multiplier"])
    assert found[0] == f"{found[1]}, {codes.min()} to {codes.max()}"


def test_another_json_file_is_refused(tmp_path: Path):
    (tmp_path / "graph.json").write_text('{"label": "x", "graphs": []}')
    with pytest.raises(DocumentError, match="choose the adapter of Model Explorer"):
        opened(tmp_path / "graph.json")


def test_node_data_hold_the_values_of_the_report(report: Report, folder: Path, tmp_path: Path):
    builders = pytest.importorskip("model_explorer.node_data_builder")
    (graph,) = opened(folder / "program.json")["graphs"]
    ids = {node["id"] for node in graph["nodes"]}
    files = write_node_data(report, tmp_path / "nodes")
    assert [path.name for path in files] == [
        "sqnr_db.json",
        "cycles.json",
        "bytes.json",
        "alive.json",
    ]
    for path in files:
        document = json.loads(path.read_text())
        data = builders.GraphNodeData(**document[graph["id"]])
        assert data.results.keys() <= ids
    noise = json.loads(files[0].read_text())[graph["id"]]["results"]
    assert noise == {
        step.name: {"value": step.sqnr_db} for step in report.steps if step.sqnr_db is not None
    }


def test_a_report_without_steps_has_no_node_data(report: Report, tmp_path: Path):
    old = report.model_copy(update={"steps": ()})
    with pytest.raises(UsageError, match="verify the program again"):
        write_node_data(old, tmp_path / "nodes")
    assert not (tmp_path / "nodes").exists()
