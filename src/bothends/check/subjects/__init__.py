"""Programs under test: a server or a client, its process, and the sockets it is judged by."""
