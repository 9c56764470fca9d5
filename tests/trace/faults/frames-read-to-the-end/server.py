import socket
import struct
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
buffer = b""
while data := connection.recv(4096):
    buffer += data
    while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack("!I", buffer[:4])[0]):
        message, buffer = buffer[4 : 4 + size], buffer[4 + size :]
        connection.sendall(struct.pack("!I", size) + message.upper())
connection.close()
