import socket, sys

for name in (b"Ann", b"Bob"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    s.sendto(name, ("127.0.0.1", int(sys.argv[1])))
    try:
        print(s.recv(100))
    except TimeoutError:
        print(name, "got nothing")
    s.close()
