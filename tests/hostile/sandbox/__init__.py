"""Hostile submissions: what they try from inside the sandbox."""
