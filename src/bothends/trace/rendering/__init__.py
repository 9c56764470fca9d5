"""Draw a trace: in a terminal, as SVG, as a web page, as pcapng. Start with `layout.py`. Pure."""
