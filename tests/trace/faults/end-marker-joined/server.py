import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
time.sleep(0.3)  # the disk is slow
with open("received.bin", "wb") as file:
    while chunk := connection.recv(4096):
        if chunk == b"DONE":
            break
        file.write(chunk)
connection.sendall(b"Thank you")
connection.close()
