"""The command `photomask`: it parses, calls one public function after the other, and prints.

Exit status: 0 passed, 1 verification failed, 2 usage error, 3 verification not decided.
"""

from photomask.cli.application import app, main

__all__ = ["app", "main"]
