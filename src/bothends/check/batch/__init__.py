"""Judge many submissions: build each, run the check, and sum up; start with `grading.py`."""
