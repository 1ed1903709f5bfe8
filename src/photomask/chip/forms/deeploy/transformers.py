"""Refuses softmax, norms and embeddings."""

from photomask.chip.forms.deeploy.context import DEEPLOY
from photomask.chip.operators import Embedding, Normalize, Softmax

DEEPLOY.refuses(Softmax, "this form writes no softmax of a program's integers")
DEEPLOY.refuses(Normalize, "this form writes no norm of a program's integers")
DEEPLOY.refuses(Embedding, "this form does not choose rows of a table")
