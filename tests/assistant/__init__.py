"""Tests of the assistant's tools."""
