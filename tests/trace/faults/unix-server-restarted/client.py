import socket, time

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("daemon.sock")
for word in (b"a", b"restart", b"b", b"c"):
    try:
        s.send(word)
    except OSError as error:
        print(word, error)
    time.sleep(0.2)
