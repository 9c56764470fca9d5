import sys
import socket, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(.2)
s.sendall(b"stressed"); print(s.recv(100)); s.sendall(b"drawer"); print(s.recv(100))
