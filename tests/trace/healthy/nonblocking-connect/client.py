import errno, os, select, socket, sys

s = socket.socket()
s.setblocking(False)
code = s.connect_ex(("127.0.0.1", int(sys.argv[1])))
assert code == errno.EINPROGRESS, os.strerror(code)
select.select([], [s], [])
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
s.send(b"there and")
select.select([s], [], [])
print(s.recv(100))
s.close()
