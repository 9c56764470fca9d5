"""A UDP client that retransmits: a datagram or its answer may be lost, so it repeats the request.

Run it:
    bothends serve upper udp://:12000
    python examples/insist.py udp://127.0.0.1:12000 hello
"""

import sys

from bothends import connect
from bothends.errors import SystemCallFailed, TimeoutExpired

endpoint, request = sys.argv[1:]
with connect(endpoint, timeout=3.0) as connection:
    try:
        print(connection.request(request, retries=4).decode())
    except (SystemCallFailed, TimeoutExpired) as error:
        sys.exit(str(error))
