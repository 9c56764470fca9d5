import socket, sys

old = socket.socket(socket.AF_UNIX)
old.bind("app.sock")
old.listen()
old.close()
s = socket.socket(socket.AF_UNIX)
s.connect("app.sock")
