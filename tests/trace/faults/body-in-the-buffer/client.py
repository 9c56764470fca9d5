import sys
import hashlib
import socket

files = {"notes.txt": b"buy milk\n" * 300, "photo.bin": bytes(range(256)) * 700}

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    f = s.makefile("rwb")
    for name, data in files.items():
        f.write(b"PUT %s %d\n" % (name.encode(), len(data)))
        f.write(data)
        f.flush()
        status, digest = f.readline().decode().split()
        ok = digest == hashlib.md5(data).hexdigest()
        print(name, status, "checksum ok" if ok else "CHECKSUM DIFFERS", flush=True)
