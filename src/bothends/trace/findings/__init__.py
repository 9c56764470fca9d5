"""Mistakes that a time-line shows: `base.py` says what a finding is, `registry.py` has the table of rules."""

from bothends.trace.findings.base import Finding, evidence_lines
from bothends.trace.findings.registry import RULES, run_rules

__all__ = ["RULES", "Finding", "evidence_lines", "run_rules"]
