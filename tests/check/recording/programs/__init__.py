"""A reference server and its client."""
