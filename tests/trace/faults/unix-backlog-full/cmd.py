import socket

listener = socket.socket(socket.AF_UNIX)
listener.bind("q.sock")
listener.listen(0)
for _ in range(3):
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    print(s.connect_ex("q.sock"))
