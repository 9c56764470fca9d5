"""Print when eth0 goes down, and when both addresses of the other host have a route again."""

import fcntl
import select
import socket
import struct


def is_up() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, 0x8913, struct.pack("16s24x", b"eth0"))  # SIOCGIFFLAGS
    return bool(struct.unpack_from("=H", answer, 16)[0] & 1)  # IFF_UP


def has_route(family: int, address: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 7))
        except OSError:
            return False
        return True


def poll_delay() -> None:
    select.select([], [], [], 0.01)


while is_up():
    poll_delay()
print("down", flush=True)
while not is_up():
    poll_delay()
while not (has_route(socket.AF_INET, "10.0.0.1") and has_route(socket.AF_INET6, "fd00::1")):
    poll_delay()
print("up", flush=True)
