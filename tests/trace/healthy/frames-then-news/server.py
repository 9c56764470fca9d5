import socket
import struct
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
buffer, answered = b"", 0
while answered < 3:
    buffer += connection.recv(4096)
    while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack("!I", buffer[:4])[0]):
        message, buffer = buffer[4 : 4 + size], buffer[4 + size :]
        connection.sendall(struct.pack("!I", size) + message.upper())
        answered += 1
time.sleep(1.5)
connection.sendall(struct.pack("!I", 4) + b"news")
connection.recv(1)
connection.close()
