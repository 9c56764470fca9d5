import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
pending = {}
while True:
    readable, writable, _ = select.select([listener, *pending], [s for s in pending if pending[s]], [])
    for s in writable:
        sent = s.send(pending[s])
        pending[s] = pending[s][sent:]
    for s in readable:
        if s is listener:
            conn, _ = s.accept()
            conn.setblocking(False)
            pending[conn] = b""
            continue
        data = s.recv(4096)
        if data:
            pending[s] += data
        else:
            del pending[s]
            s.close()
