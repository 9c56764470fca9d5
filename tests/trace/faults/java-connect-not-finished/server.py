import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
print("request:", conn.recv(1000))
