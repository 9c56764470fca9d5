import socket
import sys
import time


class Guest:
    def __init__(self, name):
        self.name = name
        self.sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=4)
        self.file = self.sock.makefile("rb")
        try:
            if self.file.readline() != b"SEATED\n":
                raise ConnectionResetError("not seated")
        except OSError:
            self.close()
            raise

    def say(self, text):
        self.sock.sendall(text.encode() + b"\n")
        return self.file.readline().decode().strip()

    def close(self):
        self.file.close()
        self.sock.close()


def seat(name, tries=6):
    for i in range(tries):
        try:
            return Guest(name)
        except ConnectionResetError:
            print(name, "refused, waiting")
            time.sleep(0.2 * (i + 1))
            if i == 1:
                print(a.say("LEAVE"))
                a.close()
    sys.exit("no seat for " + name)


a = seat("a")
b = seat("b")
print(a.say("hello"), b.say("good evening"))
c = seat("c")
print(c.say("at last"))
for g in (b, c):
    print(g.say("LEAVE"))
    g.close()
