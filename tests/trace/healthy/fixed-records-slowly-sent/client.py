import socket
import struct
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, s.makefile("rb") as f:
    for size in (100, 300_000):
        record = struct.pack("!II", 1, size).ljust(64, b"\0")
        s.sendall(record[:30])
        time.sleep(1.2)  # the rest is not known yet
        s.sendall(record[30:])
        s.sendall(bytes(size))
        print(f.read(8), f.read(4))
