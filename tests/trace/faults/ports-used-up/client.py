import socket, struct, sys

connections = []
for number in range(50):
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_IP, 51, struct.pack("I", 47019 << 16 | 47010))  # IP_LOCAL_PORT_RANGE
    s.connect(("127.0.0.1", int(sys.argv[1])))
    connections.append(s)
    s.sendall(b"%d\n" % number)
    s.recv(10)
