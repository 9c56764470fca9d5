import select, socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[2])))
end = time.time() + 2
while time.time() < end:
    s.sendto(b"hello from one", ("127.0.0.1", int(sys.argv[3])))
    if select.select([s], [], [], 0.3)[0]:
        print(s.recvfrom(100))
        time.sleep(0.2)
