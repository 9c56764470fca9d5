"""Load generators: in Python for every transport, in C for speed. Start with `base.py`."""
