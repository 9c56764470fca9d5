import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.sendall(b"everything that is known\n" * 200)
conn.shutdown(socket.SHUT_WR)
comment = b""
while data := conn.recv(100):
    comment += data
print("the client says", comment)
conn.close()
