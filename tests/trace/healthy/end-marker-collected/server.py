import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
time.sleep(0.3)
data = b""
while not data.endswith(b"DONE"):
    data += connection.recv(4096)
connection.sendall(b"wait")
time.sleep(1.2)
connection.sendall(b"Thank you")
connection.recv(1)
connection.close()
