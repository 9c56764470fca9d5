import select, socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    readable, _, _ = select.select([s, sys.stdin], [], [])
    if s in readable:
        data = s.recv(4096)
        if not data:
            break
        print("<", data.decode(), end="")
    if sys.stdin in readable:
        s.sendall(sys.stdin.readline().encode())
