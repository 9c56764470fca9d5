import sys
import socket
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall("HELLO from Guido\n".encode("utf-8"))
reply = s.recv(2048)
print(reply[2:].decode())
