"""Reports: a result as a text that other programs, or a browser, understand."""

from bothends.check.reports.formats import render

__all__ = ["render"]
