import socket, sys

s = socket.socket()
s.bind(("192.0.2.10", int(sys.argv[1])))
s.listen()
conn, _ = s.accept()
conn.sendall(b"welcome\n")
