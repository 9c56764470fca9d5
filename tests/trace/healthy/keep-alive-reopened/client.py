import select, socket, sys, time

s = None


def ask(question):
    global s
    if s is not None and select.select([s], [], [], 0)[0]:
        s.close()  # the server has closed it
        s = None
    if s is None:
        s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(question)
    return s.recv(1000)


print(ask(b"first"), ask(b"second"))
time.sleep(0.8)
print(ask(b"third"))
s.close()
