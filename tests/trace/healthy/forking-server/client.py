import socket, sys

for number in range(3):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"number %d\n" % number)
        print(s.recv(1000))
        s.sendall(b"bye\n")
        print(s.recv(1000))
