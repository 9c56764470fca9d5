import errno, socket, sys

address = ("127.0.0.1", int(sys.argv[1]))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for size in (100, 100_000):
    message = b"m" * size
    try:
        u.sendto(message, address)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        with socket.create_connection(address) as t:
            t.sendall(message)
