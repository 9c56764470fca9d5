"""Tests of `bothends attack`."""
