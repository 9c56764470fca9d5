"""Render a trace: in a terminal, as SVG, as a web page, as pcapng. Pure. Start with `layout.py`."""
