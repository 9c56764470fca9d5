import socket

s = socket.socket(socket.AF_UNIX)
s.connect("app.sock")
