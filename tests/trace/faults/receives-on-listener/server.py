import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen(5)
conn, addr = s.accept()
print("connection from", addr)
while True:
    data = s.recv(1024)
    if not data:
        break
    conn.sendall(data.upper())
conn.close()
