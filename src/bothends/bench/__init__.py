"""Benchmark servers: throughput, latency, faults, and whether the load generator was the bottleneck.

Rank 4. The package never imports an engine: a target is an address or a command, so that servers in any
language are measured alike. Each file imports only those above it:

1. `schedule.py` (send times), `workload.py` (requests and expected responses), `histogram.py` (latencies),
   `heat_map.py` (latencies over time), `http_response.py` and `http_target.py` (requests and responses of
   HTTP), `bulk_pattern.py` (the data of a transfer) and `results.py` (the versioned result format) are pure.
2. `request_tracker.py` is the sans-IO bookkeeping of one connection: pending requests, and the fault in each
   response. Every received byte is compared. `http_tracker.py` is the same for HTTP.
3. `generators/base.py` is the contract of a load generator. There are two: `generators/python.py` is one
   thread with epoll, for every transport; `generators/native.py` wraps the one in C, if it was built.
   `generators/bulk.py` measures transfers instead of requests.
4. `generators/dialer.py` opens connections. `load.py` selects a generator, runs rounds, and decides whether
   the generator was the bottleneck. `campaign.py` measures several targets, `cluster.py` one from several
   machines.
5. `report/text.py`, `report/html.py` and `report/plots.py` present results; `significance.py` compares two.
"""
