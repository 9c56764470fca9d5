import select
import socket
import sys

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
inputs = [server]
while True:
    readable, _, _ = select.select(inputs, [], [])
    for s in readable:
        if s is server:
            conn, addr = s.accept()
            inputs.append(conn)
        else:
            data = s.recv(1024)
            if data:
                s.sendall(data)
            else:
                s.close()
