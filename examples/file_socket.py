"""Both ends in one program, on a socket in the file system, whose mode controls access.

Run it:
    python examples/file_socket.py
"""

import tempfile
from pathlib import Path

from bothends import connect, serve

with tempfile.TemporaryDirectory() as folder:
    for scheme in ("unix", "unix+dgram", "unix+seqpacket"):
        path = Path(folder) / "socket"
        with serve("upper", f"{scheme}://{path}?mode=600"), connect(f"{scheme}://{path}") as connection:
            print(scheme, connection.request("hello").decode())
