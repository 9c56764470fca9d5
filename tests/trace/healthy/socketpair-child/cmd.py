import os, socket

parent, child = socket.socketpair()
pid = os.fork()
if pid == 0:
    parent.close()
    while data := child.recv(100):
        child.sendall(data * 2)
    child.close()
    os._exit(0)
child.close()
for word in (b"ab", b"cd"):
    parent.sendall(word)
    print(parent.recv(100))
parent.close()
os.waitpid(pid, 0)
