import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.25)
bit = 0
for block in range(10):
    packet = bytes([bit]) + b"block %d" % block
    while True:
        s.sendto(packet, ("127.0.0.1", int(sys.argv[1])))
        try:
            while s.recv(10) != bytes([bit]):
                pass
            break
        except TimeoutError:
            pass
    bit ^= 1
s.close()
