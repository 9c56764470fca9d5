"""Findings: mistakes that a trace shows. `base.py` defines a finding, `registry.py` the table of rules."""

from bothends.trace.findings.base import Finding, evidence_lines
from bothends.trace.findings.registry import RULES, run_rules

__all__ = ["RULES", "Finding", "evidence_lines", "run_rules"]
