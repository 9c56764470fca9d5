import socket, threading

a, b = socket.socketpair()


def work():
    while job := b.recv(10):
        b.send(job.upper())
    b.close()


thread = threading.Thread(target=work)
thread.start()
for number in range(10):
    a.send(b"job %d" % number)
    a.recv(10)
a.close()
thread.join()
