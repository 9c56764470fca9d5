import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("seq.sock")
for message in (b"a", b"bb", b"ccc"):
    s.send(message)
    print(s.recv(1000))
s.close()
