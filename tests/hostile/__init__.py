"""Hostile input of every kind: each test says what it tries, and what must happen."""
