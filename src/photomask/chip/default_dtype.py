"""The dtype of tensors that are made without one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Lets tensors that are made without a dtype be float32, whatever the program's default is.

    As a decorator it does so for a whole function. Quantizers and models are float32 throughout;
    with another default (`torch.set_default_dtype`), code that leaves the dtype open would mix it
    with float32, or round scales to 8 bits of significand. The default is restored at the end.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
