"""A server for each built-in contract, right without an argument, or with one of its mistakes."""
