"""Tests of bothends.sockets, on real sockets."""
