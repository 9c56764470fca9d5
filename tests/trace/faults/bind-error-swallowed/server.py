import sys
import socket

ls = socket.create_server(("127.0.0.1", int(sys.argv[1])))
ls.settimeout(6)
counters = {"requests": 812, "errors": 3}
try:
    while True:
        conn, _ = ls.accept()
        with conn, conn.makefile("rw") as f:
            for line in f:
                name = line.strip()
                f.write("%d\n" % counters[name] if name in counters else "no such counter: %s\n" % name)
                f.flush()
except socket.timeout:
    pass
ls.close()
