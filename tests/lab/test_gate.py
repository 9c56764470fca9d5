"""The gate at which strace attaches to a program: it opens when strace has attached, and not earlier."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bothends.lab.sandboxed import attach_at_gate, open_gate

# Attaches as strace does, but slowly: 0.3 s of computation lie between its two calls.
_SLOW_TRACER = """
import ctypes, signal, sys, time
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
file, pid = sys.argv[1], int(sys.argv[3])
if ptrace(PTRACE_SEIZE, pid, None, None):
    sys.exit(1)
until = time.monotonic() + 0.3
while time.monotonic() < until:
    pass
open(file, "w").close()
ptrace(PTRACE_INTERRUPT, pid, None, None)
signal.pause()
"""


def test_program_starts_after_both_calls_of_the_tracer(tmp_path: Path) -> None:
    interrupted = tmp_path / "interrupted"
    reader, writer = os.pipe()
    gate, inner = open_gate()
    program = os.fork()
    if program == 0:
        inner.send(b"1")
        inner.recv(1)
        os.write(writer, b"after" if interrupted.exists() else b"before")
        os._exit(0)
    os.close(writer)
    with gate, inner:
        _, tracer = attach_at_gate(gate, [sys.executable, "-c", _SLOW_TRACER, str(interrupted)])
        assert tracer is not None
        tracer.kill()  # lets the program go
        tracer.wait()
        assert os.read(reader, 10) == b"after"
    os.waitpid(program, 0)
    os.close(reader)
