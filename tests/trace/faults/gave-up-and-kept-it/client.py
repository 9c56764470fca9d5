import errno, socket, sys, time

s = socket.socket()
s.setblocking(False)
code = s.connect_ex(("127.0.0.1", int(sys.argv[1])))
if code != 0:
    print("could not connect:", errno.errorcode[code])
    time.sleep(2)
