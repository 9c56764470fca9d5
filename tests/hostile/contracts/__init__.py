"""Contracts of others: what they may not do."""
