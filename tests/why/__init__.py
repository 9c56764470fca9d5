"""Tests of `bothends why`: real programs that wait for each other, and healthy ones."""
