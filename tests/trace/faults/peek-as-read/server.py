import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
while True:
    select.select([connection], [], [])
    line = connection.recv(1000, socket.MSG_PEEK)
    if not line:
        break
    if line == b"quit\n":
        break
