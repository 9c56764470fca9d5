import sys
import socket, time
time.sleep(.6)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET b\n")
print("b is", s.recv(100).decode())
