"""The sandbox for programs under test: `launcher.py` runs outside of it, `init.py` inside."""
