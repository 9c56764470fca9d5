"""The source line of each call, for Python: `sitecustomize.py` is in the program, `records.py` in the lab."""
