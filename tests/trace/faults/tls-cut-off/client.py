import socket, ssl, sys

context = ssl.create_default_context(cafile="cert.pem")
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
tls = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
tls.sendall(b"report")
data = b""
while piece := tls.recv(4096):
    data += piece
print(data)
