"""Programs in Google's Model Explorer: an adapter, and values to colour its nodes with.

```bash
model-explorer out/resnet20/program.json --extensions=photomask.chip.model_explorer
```

Model Explorer has no entry points: it imports `main` of the package that `--extensions` names.

Source: the wiki of google-ai-edge/model-explorer, "Develop adapter extension"; version 0.1.34.
"""

from photomask.chip.model_explorer.node_data import write_node_data

__all__ = ["write_node_data"]
