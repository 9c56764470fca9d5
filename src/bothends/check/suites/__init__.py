"""The suites: `*_table.py` lists the cases, `*_stimuli.py` is what they do; start with `registry.py`.

`proxies/` has the suites for proxies.
"""
