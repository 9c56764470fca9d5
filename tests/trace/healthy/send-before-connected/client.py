import os, select, socket, sys

for port in (int(sys.argv[2]), int(sys.argv[1])):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", port))
    while True:
        try:
            s.send(b"hello\n")
            break
        except BlockingIOError:
            select.select([], [s], [])
        except OSError as error:
            print(port, error)
            s = None
            break
select.select([s], [], [])
print(s.recv(100))
s.close()
