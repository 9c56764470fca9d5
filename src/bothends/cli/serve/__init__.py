"""`bothends serve`: start with `command.py`."""
