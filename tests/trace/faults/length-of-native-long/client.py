import random
import socket
import struct
import sys

random.seed(1)
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect(('127.0.0.1', int(sys.argv[1])))

for i in range(10):
    frame = bytes(random.getrandbits(8) for _ in range(3000))
    client.sendall(struct.pack("<I", len(frame)) + frame)
    print("sent frame", i)
    print(client.recv(2))
