"""Fuzzing of everything that reads text or bytes of others: `make fuzz`."""
