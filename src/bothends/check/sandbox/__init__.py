"""The sandbox in which programs under test run: `launcher.py` outside, `init.py` inside."""
