"""What no node of QONNX describes: integers inside softmax and norms, and codes as positions."""

from photomask.chip.forms.qonnx.context import QONNX
from photomask.chip.operators import Embedding, Normalize, Softmax

QONNX.refuses(
    Softmax,
    "its exponents come from a table of integers and its reciprocal is an integer, which no node "
    "of QONNX describes",
)
QONNX.refuses(
    Normalize, "its root and its reciprocal are integers, which no node of QONNX describes"
)
QONNX.refuses(Embedding, "its codes choose rows of a table, and QONNX describes real values alone")
