import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
listener.close()
conn.sendall(conn.recv(100))
conn.recv(1)
conn.close()
