import os, socket, sys

port = int(sys.argv[2])
pid = os.fork()
if pid == 0:
    s = socket.socket()
    s.bind(("192.0.2.10", port))
    s.listen()
    s.accept()
os.waitpid(pid, 0)
s = socket.create_connection(("127.0.0.1", port))
