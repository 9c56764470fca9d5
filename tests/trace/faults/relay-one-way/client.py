import sys
import socket
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"world"); print(s.recv(100)); s.close()
