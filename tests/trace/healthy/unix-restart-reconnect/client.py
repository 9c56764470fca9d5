import socket, time

def connected():
    for attempt in range(50):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            s.connect("d.sock")
            return s
        except OSError:
            time.sleep(0.1)

s = connected()
for word in (b"a", b"restart", b"b", b"restart"):
    try:
        s.send(word)
    except OSError:
        s.close()
        s = connected()
        s.send(word)
    time.sleep(0.3)
