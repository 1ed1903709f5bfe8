"""What Model Explorer imports of `--extensions=photomask.chip.model_explorer`."""

from typing import Any

from photomask.chip.model_explorer.graphs import graph_of
from photomask.chip.program.program import PROGRAM_FILE
from photomask.dependencies import OptionalPackage

with OptionalPackage("ai-edge-model-explorer", "model-explorer", "the Model Explorer adapter"):
    from model_explorer import Adapter, AdapterMetadata, ModelExplorerGraphs


class ProgramAdapter(Adapter):
    """Opens the `program.json` of a program, or of an export, as a graph."""

    metadata = AdapterMetadata(
        id="photomask",
        name="Photomask integer program",
        description=f"Opens the {PROGRAM_FILE} of an export of Photomask.",
        fileExts=["json"],
    )

    def convert(self, model_path: str, settings: dict[str, Any]) -> ModelExplorerGraphs:
        """Returns the program as a graph.

        Args:
            model_path: of a `program.json`. Where `program.safetensors` lies beside it, the ends of
                multipliers, shifts and other constants are shown as well.
            settings: of Model Explorer; none are used.

        Raises:
            DocumentError: the file is no program, or its constants are damaged.
        """
        return {"graphs": [graph_of(model_path)]}
