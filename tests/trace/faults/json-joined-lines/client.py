import json
import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"ann")
while True:
    message = json.loads(s.recv(2048))
    print(message["type"])
    if message["type"] == "board":
        break
s.sendall(b"move 4")
