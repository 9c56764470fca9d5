import socket, struct, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
count = 0
while True:
    query, peer = s.recvfrom(600)
    count += 1
    end = query.index(b"\0", 12) + 5
    kind = query[end - 3]
    if count == 3:
        continue  # lost: the resolver asks again
    head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if kind == 1 else b"\0\0") + bytes(4)
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if kind == 1 else b""
    s.sendto(head + query[12:end] + answer, peer)
