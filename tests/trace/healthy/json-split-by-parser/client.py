import json
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, s.makefile("rb") as answers:
    for number in range(4):
        s.sendall(json.dumps({"id": number, "item": "apples"}).encode())
    for _ in range(4):
        print(answers.readline())
