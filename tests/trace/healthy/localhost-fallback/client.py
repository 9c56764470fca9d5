import socket, sys

for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
    s = socket.socket(family)
    try:
        s.connect((address, int(sys.argv[1])))
        break
    except ConnectionRefusedError:
        s.close()
s.sendall(b"found you\n")
print(s.recv(100))
s.close()
