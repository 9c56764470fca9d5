import socket, sys

out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
into = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
into.bind(("127.0.0.1", int(sys.argv[3])))
into.settimeout(2)
out.sendto(b"status?", ("127.0.0.1", int(sys.argv[1])))
try:
    print(into.recvfrom(100))
except TimeoutError:
    print("no status")
