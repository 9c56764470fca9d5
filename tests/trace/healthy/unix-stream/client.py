import socket

for _ in range(2):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("app.sock")
        s.sendall(b"hello\n")
        print(s.recv(100))
        s.sendall(b"again\n")
        print(s.recv(100))
