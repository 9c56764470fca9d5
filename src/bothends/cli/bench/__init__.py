"""`bothends bench`: start with `command.py`."""
