import socket, sys

port = int(sys.argv[1])
for candidate in range(port - 3, port + 4):
    s = socket.socket()
    s.settimeout(1)
    if s.connect_ex(("127.0.0.1", candidate)) == 0:
        print(candidate, "open:", s.recv(100))
    s.close()
