import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
for number in (2, 3, 4, 5):
    while True:
        s.sendto(b"%d" % number, ("127.0.0.1", int(sys.argv[1])))
        try:
            print(number, "squared is", s.recv(100).decode())
            break
        except TimeoutError:
            pass
