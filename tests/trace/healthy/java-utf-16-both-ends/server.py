import socket
import sys
import time

with socket.create_server(("", int(sys.argv[1]))) as listener:
    connection, _ = listener.accept()
    with connection, connection.makefile("r", encoding="utf-16-be", newline="\n") as lines:
        command = lines.readline().strip()
        time.sleep(1.2)
        connection.sendall(b"noon\n" if command == "TIME" else b"unknown\n")
