import resource
import select
import socket
import sys

resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
poll = select.poll()
poll.register(listener, select.POLLIN)
connections = []
while True:
    poll.poll()
    try:
        connections.append(listener.accept()[0])
    except OSError as error:
        last_error = error
