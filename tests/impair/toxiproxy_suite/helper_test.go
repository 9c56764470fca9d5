package toxiproxy_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// AssertProxyUp is the helper of Toxiproxy's toxiproxy_test.go, whose other helpers need its server.
//
// The upstreams of the test do not exist. Toxiproxy then closes the client's connection, bothends resets it, as the
// server's host would, possibly before connect() returns.
func AssertProxyUp(t *testing.T, addr string, up bool) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if (err == nil || errors.Is(err, syscall.ECONNRESET)) != up {
		t.Errorf("connect to %s: %v, but the proxy should be up: %v", addr, err, up)
	}
	return conn
}
