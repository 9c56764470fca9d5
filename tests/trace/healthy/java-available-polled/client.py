import sys
import socket, time
for i in range(2):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    time.sleep(.3); s.sendall(b"hel"); time.sleep(.2); s.sendall(b"lo\n"); print(s.recv(100)); s.close()
