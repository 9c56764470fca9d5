import socket
import sys
import threading

clients = []


def handle():
    connection.sendall(b"welcome\n")
    while data := connection.recv(1024):
        connection.sendall(b"echo " + data)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, address = listener.accept()
    clients.append(connection)
    threading.Thread(target=handle, daemon=True).start()
