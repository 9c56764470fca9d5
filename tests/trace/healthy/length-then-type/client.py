import socket
import struct
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for kind, body in (1, b"a note that is not answered"), (2, b"a question"):
        s.sendall(struct.pack("<II", 4 + len(body), kind) + body)
        time.sleep(1.2)
    size, _ = struct.unpack("<II", s.recv(8, socket.MSG_WAITALL))
    print(s.recv(size - 4, socket.MSG_WAITALL))
