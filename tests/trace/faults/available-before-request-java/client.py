import sys
import socket, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(.2)      # prepares its request
s.sendall(b"ECHO hello")
print("answer:", s.recv(100).decode() or exit("no answer"))
