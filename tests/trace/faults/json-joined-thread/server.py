import json
import socket
import sys
import threading
import time


def serve(connection):
    time.sleep(0.2)  # open the database
    while data := connection.recv(4096):
        order = json.loads(data)
        connection.sendall(json.dumps({"done": order["id"]}).encode())


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connections = []
while True:
    connection, _ = listener.accept()
    connections.append(connection)
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
