"""Order events, and match calls with packets. Pure. Start with `correlator.py`."""
