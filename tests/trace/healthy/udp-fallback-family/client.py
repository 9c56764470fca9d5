import socket, sys

for family, _, _, _, address in socket.getaddrinfo("localhost", sys.argv[1], type=socket.SOCK_DGRAM):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(1)
    try:
        s.connect(address)
        s.send(b"hello")
        print(s.recv(100))
        break
    except OSError as error:
        print(address, error)
        s.close()
