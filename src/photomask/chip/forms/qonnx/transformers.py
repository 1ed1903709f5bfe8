"""Refuses softmax, norms and embeddings, because no node of QONNX describes their integers."""

from photomask.chip.forms.qonnx.context import QONNX
from photomask.chip.operators import Embedding, Normalize, Softmax

QONNX.refuses(
    Softmax,
    "its exponents come from a table of integers and its reciprocal is an integer, and no node of "
    "QONNX describes these",
)
QONNX.refuses(
    Normalize,
    ("its square root and its reciprocal are integers, and no node of QONNX describes these"),
)
QONNX.refuses(Embedding, "its codes choose rows of a table, but QONNX describes only real values")
