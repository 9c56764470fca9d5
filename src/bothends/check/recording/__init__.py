"""Record what a right client and a right server say to each other, and write it as a contract."""
