import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
counters = {}
while True:
    name = s.recv(1500).split(b":")[0]
    counters[name] = counters.get(name, 0) + 1
