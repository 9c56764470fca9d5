import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET big\n")
f = s.makefile("rb")
n = int.from_bytes(f.read(8), "big")
got = 0
while got < n:
    d = f.read1(65536)
    if not d: break
    got += len(d)
print("got", got, "of", n)
