import json
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            step = json.loads(line)["step"]
            stream.write(b'{"step": %d}\n{"done": %s}\n' % (step, b"true" if step == 2 else b"false"))
            stream.flush()
