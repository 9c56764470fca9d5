"""Tests of the other end."""
