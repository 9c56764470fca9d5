"""Reference servers: the `upper` service implemented with other libraries, each file a complete program.

Each runs as `program tcp` or `program udp`. It listens on a free port of 127.0.0.1, prints its endpoint
(`tcp://127.0.0.1:PORT`), and returns all input in upper case until it is terminated. They follow the
documentation of their libraries without further tuning. None imports bothends.
"""
