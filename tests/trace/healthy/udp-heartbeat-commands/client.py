import select, socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for beat in range(5):
    s.sendto(b"alive %d" % beat, ("127.0.0.1", int(sys.argv[1])))
    if select.select([s], [], [], 0.3)[0]:  # a command for us?
        print(s.recv(1500))
s.close()
