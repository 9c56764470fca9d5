unshare -n sh -c '
ip link set lo up && ip route add 10.9.9.0/24 dev lo
exec python3 -c "
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
s.connect((\"10.9.9.2\", 80))
"'
