"""Reports: a result in formats for people, CI servers and graders."""

from bothends.check.reports.formats import render

__all__ = ["render"]
