"""Reports: a result in formats for people, CI servers and graders."""

from bothends.check.reports.formats import FORMATS, SUFFIXES, render

__all__ = ["FORMATS", "SUFFIXES", "render"]
