import socket, struct, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rb") as stream:
    while header := stream.read(4):
        version, kind, size = struct.unpack("!BBH", header)
        if version != 1:
            sys.exit(f"unknown version {version}")
        print(kind, stream.read(size))
