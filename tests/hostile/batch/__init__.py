"""Hostile submissions of a batch."""
