"""Programs under test: servers and clients, their processes, and the sockets that test them."""
