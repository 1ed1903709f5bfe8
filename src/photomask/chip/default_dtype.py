"""Sets the dtype of tensors that are created without an explicit one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Makes float32 the default dtype inside a context, and restores the user's default after it.

    It is also a decorator for a whole function. Quantizers and models are float32 throughout. With
    another default (`torch.set_default_dtype`), code that creates tensors without a dtype would mix
    that dtype with float32, or round scales to the 8-bit significand of bfloat16.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
