"""`bothends connect`: start with `command.py`."""
