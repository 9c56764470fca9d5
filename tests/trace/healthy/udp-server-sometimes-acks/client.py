import select, socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
for number in range(25):
    s.send(b"sample %d" % number)
    if select.select([s], [], [], 0.05)[0]:
        print(s.recv(100))
s.settimeout(0.5)
try:
    s.recv(100)
except TimeoutError:
    pass
