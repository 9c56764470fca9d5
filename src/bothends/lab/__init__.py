"""The lab: two programs, the path between them and what really happened, on one page in a browser.

    browser ── HTTP, WebSocket ──> server.py ── a process for each run ──> run.py ── sandbox ──> programs

`messages.py` has what they say to each other.
"""
