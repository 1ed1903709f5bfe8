"""`python -m photomask` is the command `photomask`."""

from photomask.cli import main

if __name__ == "__main__":
    main()
