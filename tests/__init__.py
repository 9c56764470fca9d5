"""The tests mirror src/bothends: tests/engines/test_fork.py tests engines/fork.py."""
