"""What others would use: the same little server, `upper`, by other means, each file a whole program.

Each is run as `program tcp` or `program udp`: it listens on a free port of 127.0.0.1, says where in one line
(`tcp://127.0.0.1:PORT`), and answers what comes in capitals, until it is told to end. They are written as
their libraries' own documentation would have it, and no better or worse than that; none imports bothends.
"""
