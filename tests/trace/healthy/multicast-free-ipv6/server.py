import socket, sys

listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    conn, peer = listener.accept()
    with conn:
        conn.sendall(peer[0].encode())
