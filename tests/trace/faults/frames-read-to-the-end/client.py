import socket
import struct
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"".join(struct.pack("!I", len(each)) + each for each in (b"one", b"two", b"three")))
    answers = b""
    while data := connection.recv(4096):
        answers += data
    print(answers)
