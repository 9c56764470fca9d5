"""The suites for proxies: `*_table.py` lists the cases, and a file for each theme has what they do."""
