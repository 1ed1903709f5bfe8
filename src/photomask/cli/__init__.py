"""The command `photomask`: it parses, calls one public function after the other, and prints.

Exit status: 0 passed, 1 verification failed, 2 any error, 3 verification not decided, 130
interrupted, 141 the reader of the output has gone.
"""

from photomask.cli.application import app, main

__all__ = ["app", "main"]
