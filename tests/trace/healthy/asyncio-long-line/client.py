import json
import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rw")
for n in (10, 40000):
    f.write(json.dumps({"items": list(range(n))}) + "\n")
    f.flush()
    print(f.readline())
f.close()
s.close()
