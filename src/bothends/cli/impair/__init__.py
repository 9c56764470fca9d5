"""`bothends impair`: start with `command.py`."""
