import sys
import socket
import ssl

orders = ["apples,%d" % n for n in range(1, 6)] + ["blood oranges from Valencia,%d" % n for n in range(1, 9)]

ctx = ssl.create_default_context(cafile="cert.pem")
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as raw:
    with ctx.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall("".join(o + "\n" for o in orders).encode())
        answers = s.makefile("rb")
        for o in orders:
            answer = answers.readline()
            if not answer:
                raise SystemExit("connection closed before the answer to " + o)
            print(o, "->", answer.decode().strip(), flush=True)
print("all orders confirmed")
