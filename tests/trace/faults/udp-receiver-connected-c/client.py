import socket, sys

for name in (b"first", b"second"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.sendto(name, ("127.0.0.1", int(sys.argv[1])))
        try:
            print(s.recv(100))
        except OSError as error:
            print(name, error)
