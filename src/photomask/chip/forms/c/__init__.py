"""The C form: a program as a C11 project that needs no libraries and checks itself.

How a program becomes C, in the words that all forms share:

1. A **writer** (`convolution`, `elementwise`, `moving`, `pooling`, `products`, `requantize`,
   `transformers`) gets an operator and the **context** of its step, and returns the body of the
   step's C function. `context.py` says what a context holds; its table `C` says which writer
   belongs to which operator.
2. `network.py` makes a context for each step, calls the writers, and plans the memory. `source.py`
   and `project.py` put the results into files.
3. `export.py` has the form, `CForm`. Its **export** writes the files with golden vectors beside
   them. Its **check** compiles them and compares every output integer with the oracle's.
"""

from photomask.chip.forms.c import convolution as convolution
from photomask.chip.forms.c import elementwise as elementwise
from photomask.chip.forms.c import moving as moving
from photomask.chip.forms.c import pooling as pooling
from photomask.chip.forms.c import products as products
from photomask.chip.forms.c import requantize as requantize
from photomask.chip.forms.c import transformers as transformers
from photomask.chip.forms.c.export import CForm
from photomask.chip.forms.c.project import CONSTANTS_FILE, CSource, Weights, generate_c

__all__ = ["CONSTANTS_FILE", "CForm", "CSource", "Weights", "generate_c"]
