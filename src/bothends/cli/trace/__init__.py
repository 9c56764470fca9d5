"""`bothends trace`: start with `command.py`."""
