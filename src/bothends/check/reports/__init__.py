"""Reports: a result as a text that other programs, or a browser, understand."""

from bothends.check.reports.forms import render

__all__ = ["render"]
