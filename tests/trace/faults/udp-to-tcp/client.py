import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b"GET / HTTP/1.0\r\n\r\n", ("127.0.0.1", int(sys.argv[1])))
try:
    print(s.recv(1000))
except TimeoutError:
    print("no answer")
