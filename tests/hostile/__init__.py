"""Hostile files, submissions and peers: each test names what it tries and what must happen."""
