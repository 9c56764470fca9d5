"""`bothends check`: start with `command.py`."""
