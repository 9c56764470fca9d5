"""Local ports that run out are a fault of their own, and not the server's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bothends.check.subjects import own_network

# Four ephemeral ports, which stay in TIME-WAIT, for a connection per request.
SCRIPT = """
set -e
ip link set lo up
echo "50000 50003" > /proc/sys/net/ipv4/ip_local_port_range
echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse
"$0" -m bothends serve -q upper tcp://127.0.0.1:12000 2>/dev/null &
server=$!
until "$0" -m bothends connect tcp://127.0.0.1:12000 --send x -q 1 >/dev/null 2>&1; do :; done
"$0" -m bothends bench tcp://127.0.0.1:12000 --reconnect --connections 2 --warmup 0 --duration 0.3 \
    --expect upper --generator "$1" || status=$?
kill "$server"
wait "$server" || true
exit "${status:-0}"
"""


@pytest.mark.skipif(not own_network.is_available(), reason="this user may not create network namespaces here")
@pytest.mark.parametrize("generator", ["native", "python"])
def test_exhausted_ports_are_counted_apart(generator: str) -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", SCRIPT, sys.executable, generator]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1, done.stderr
    assert " out of ports" in done.stdout
    assert "refused" not in done.stdout
