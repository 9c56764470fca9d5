"""Order events and match calls to packets and packets to calls. Start with `correlator.py`. Pure."""
