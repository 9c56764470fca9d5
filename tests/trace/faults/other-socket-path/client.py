import socket

s = socket.socket(socket.AF_UNIX)
s.connect("./servcie.sock")
s.sendall(b"hello\n")
