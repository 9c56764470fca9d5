"""Runs Toxiproxy's own test of its API, which is in Go, against `bothends impair`.

    python -m tests.impair.toxiproxy_suite CHECKOUT

CHECKOUT is a source tree of Toxiproxy. It needs Go 1.19 or newer, and nothing else: the Go files in this
directory replace the server and the two libraries that the test imports. The ports are the test's own: 8475
for the API, and seven more.
"""
