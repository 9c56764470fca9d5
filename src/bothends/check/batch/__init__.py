"""Check many submissions: build each, judge it, and sum up. Start with `grading.py`."""
