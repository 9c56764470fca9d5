"""`python -m tests.hostile.fuzz`: see `command.py`, which processes can import."""

import sys

from tests.hostile.fuzz.command import main

if __name__ == "__main__":
    sys.exit(main())
