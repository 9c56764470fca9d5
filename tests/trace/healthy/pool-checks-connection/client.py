import socket, sys, time

def connect():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])))

def is_alive(s):
    try:
        s.sendall(b"ping\n")
        return s.recv(100) == b"pong\n"
    except OSError:
        return False

s = connect()
for pause in (0, 0.1, 0.8):
    time.sleep(pause)
    if not is_alive(s):
        s.close()
        s = connect()
    s.sendall(b"select\n")
    print(s.recv(100))
s.close()
