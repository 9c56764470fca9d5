import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rb")
for w in (b"one\n", b"two\n", b"three\n"):
    s.sendall(w)
    r = f.readline()
    if r != b"+RE " + w:
        sys.exit("unexpected answer %r to %r" % (r, w))
