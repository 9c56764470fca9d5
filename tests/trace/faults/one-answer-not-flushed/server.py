"""A small key-value store, one command a line."""
import socket
import sys

store = {}


def session(conn):
    with conn, conn.makefile("rw", encoding="utf-8", newline="\n") as io:
        for line in io:
            command, *rest = line.split()
            if command == "put":
                store[rest[0]] = rest[1]
                io.write("stored\n")
                io.flush()
            elif command == "get":
                io.write(store.get(rest[0], "") + "\n")
                io.flush()
            elif command == "count":
                io.write(f"{len(store)} keys\n")


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    conn, _ = listener.accept()
    session(conn)
