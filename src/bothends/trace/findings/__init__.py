"""Mistakes that a time-line shows: `base.py` says what a finding is, `registry.py` has the table of rules."""

from bothends.trace.findings.base import Finding, evidence_lines
from bothends.trace.findings.registry import RULES, find

__all__ = ["RULES", "Finding", "evidence_lines", "find"]
