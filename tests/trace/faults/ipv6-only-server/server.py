import socket, sys

listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6)
conn, _ = listener.accept()
conn.sendall(b"hi\n")
