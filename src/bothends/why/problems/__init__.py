"""The kinds of problems, one module each; `table.py` lists them, worst first."""
