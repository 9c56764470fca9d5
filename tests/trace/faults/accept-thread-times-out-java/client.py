import sys
import socket, time
for pause in (0, 1.2):
    time.sleep(pause)
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1]))); s.sendall(b"7"); print(s.recv(100)); s.close()
