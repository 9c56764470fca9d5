import socket
import struct
import sys

text = b"temperature 21"
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(struct.pack("=I", len(text)) + text)
    try:
        print(s.recv(100))
    except ConnectionResetError as error:
        print(error)
