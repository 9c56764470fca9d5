import socket
import sys

listen = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listen.bind(("127.0.0.1", int(sys.argv[2])))
listen.settimeout(3)
hello, camera = listen.recvfrom(1500)
print("found", hello.decode(), "at", camera)

silent = 0
for n in range(14):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.25)
        s.sendto(b"QUERY %d" % n, camera)
        try:
            print(s.recv(1500).decode())
        except socket.timeout:
            print("query", n, "not answered")
            silent += 1
sys.exit("%d of 14 queries lost" % silent if silent else 0)
