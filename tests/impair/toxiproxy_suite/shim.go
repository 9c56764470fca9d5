// Package toxiproxy lets Toxiproxy's api_test.go run against a server in another process.
//
// The test creates its server with NewServer and Listen, and clears its proxies after each case. Here the server
// runs already, on port 8475, where the test expects it, and Clear removes the proxies through the API.
package toxiproxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/Shopify/toxiproxy/v2/client"
)

type metricsContainer struct{}

func NewMetricsContainer(*prometheus.Registry) *metricsContainer { return &metricsContainer{} }

type ProxyCollection struct{}

func (*ProxyCollection) Clear() error {
	proxies, err := toxiproxy.NewClient("http://127.0.0.1:8475").Proxies()
	for _, proxy := range proxies {
		if failed := proxy.Delete(); failed != nil {
			err = failed
		}
	}
	return err
}

type ApiServer struct{ Collection *ProxyCollection }

func NewServer(*metricsContainer, zerolog.Logger) *ApiServer { return &ApiServer{&ProxyCollection{}} }

func (*ApiServer) Listen(string) error { return nil }
