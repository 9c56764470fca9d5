import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, ancillary, flags, peer = s.recvmsg(64)
    s.sendmsg([b"too long" if flags & socket.MSG_TRUNC else b"fine"], [], 0, peer)
