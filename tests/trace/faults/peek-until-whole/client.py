import sys
import socket, struct
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for i, v in enumerate((1.5, 2.5)):
    record = struct.pack("!Id48s", i, v, b"comment")
    s.sendall(record)
    print(struct.unpack("!II", s.recv(8)))
