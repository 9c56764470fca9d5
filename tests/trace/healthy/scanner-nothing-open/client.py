import errno, select, socket, sys

pending = {}
for port in range(int(sys.argv[1]) - 5, int(sys.argv[1])):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", port))
    pending[s] = port
while pending:
    _, ready, _ = select.select([], list(pending), [], 1)
    for s in ready:
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        print(pending.pop(s), errno.errorcode.get(code, "open"))
        s.close()
sys.exit(1)
