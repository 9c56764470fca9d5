import os, socket


def serve():
    s = socket.socket(socket.AF_UNIX)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind("app.sock")
    s.listen()
    s.close()


for run in (1, 2):
    pid = os.fork()
    if pid == 0:
        serve()
        os._exit(0)
    print("run", run, os.waitpid(pid, 0)[1])
