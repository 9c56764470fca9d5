import json
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, s.makefile("rw") as stream:
    for step in range(3):
        stream.write(json.dumps({"step": step}) + "\n")
        stream.flush()
        print(json.loads(stream.readline()), json.loads(stream.readline()))
sys.exit(3)  # the number of steps
