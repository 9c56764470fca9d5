"""JSON values without anything between them, taken apart by raw_decode(); the program ends with a status."""
import json
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
buffer, orders = "", 0
with connection:
    while data := connection.recv(4096):
        buffer += data.decode()
        while buffer:
            try:
                order, end = json.JSONDecoder().raw_decode(buffer)
            except ValueError:
                break
            buffer, orders = buffer[end:], orders + 1
            connection.sendall(json.dumps({"done": order["id"]}).encode() + b"\n")
print(orders, "orders")
