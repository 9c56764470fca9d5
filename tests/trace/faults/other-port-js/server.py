import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.settimeout(6)
conn, _ = listener.accept()
