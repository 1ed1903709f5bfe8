"""Runs Triton kernels by its interpreter where there is no GPU.

The interpreter is chosen when Triton is imported, so before any test is.
"""

import os
import sys

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"
