import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
request = conn.recv(8)
print("request:", request)
conn.sendall(b"ok\n")
conn.close()
