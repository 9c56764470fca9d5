"""A UDP client that insists: a datagram or its answer may be lost, so it asks again before it gives up.

Run it:
    bothends serve upper udp://:12000
    python examples/insist.py udp://127.0.0.1:12000 hello
"""

import sys

from bothends import connect
from bothends.errors import SystemCallFailed, TimeoutExpired

where, question = sys.argv[1:]
with connect(where, timeout=3.0) as connection:
    try:
        print(connection.request(question, retries=4).decode())
    except (SystemCallFailed, TimeoutExpired) as error:
        sys.exit(str(error))
