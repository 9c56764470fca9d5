"""The attacks, one file each; `registry.py` has the table."""
