import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rb")
print(f.readline())
for cmd in (b"HELO me", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA"):
    s.sendall(cmd + b"\r\n"); print(f.readline())
s.sendall(b"Subject: hi\n\nhello\n.\n"); print(f.readline())
s.sendall(b"QUIT\r\n"); print(f.readline())
