import sys
import logging
import socket
import time

logging.basicConfig(level=logging.WARNING)
log = logging.getLogger("app")
CONFIG = {"host": "127.0.0.1", "port": int(sys.argv[1]), "backlog": 32}
USERS = {"7": "ada", "8": "grace"}


def open_listener(cfg):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.bind((cfg["host"], cfg["port"]))
    except OSError as e:
        log.info("bind %s: %s", cfg["port"], e)
    s.listen(cfg["backlog"])
    return s


time.sleep(0.2)
ls = open_listener(CONFIG)
print("app ready", flush=True)
ls.settimeout(6)
try:
    conn, _ = ls.accept()
    with conn, conn.makefile("rw") as f:
        for line in f:
            f.write("USER %s\n" % USERS.get(line.split()[-1], "unknown"))
            f.flush()
except socket.timeout:
    print("app idle, leaving")
ls.close()
