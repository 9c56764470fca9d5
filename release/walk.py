"""Use every verb of an installed bothends: `python -m release.walk VENV`.

Each verb of `bothends --help` has a step here, which runs it as a user would and looks at what it prints.
What the base installation lacks must name the command that installs it. The times of `bothends --help` and of
`import bothends` are measured; the best of some runs counts, because a machine that builds is busy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_HELP = 0.150  # seconds
MAX_IMPORT = 0.060
_TIMEOUT = 90
_UNAVAILABLE = 69  # sysexits.h


class Walk:
    """An installed bothends, and a folder to use it in.

    `python` and `bothends`: the programs of the environment. Each method `do_VERB` is one step.
    """

    def __init__(self, environment: Path, folder: Path) -> None:
        self.python = environment / "bin/python"
        self.bothends = environment / "bin/bothends"
        self.folder = folder
        self.variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BOTHENDS"))
        }
        self.variables["PATH"] = f"{environment / 'bin'}:{os.environ['PATH']}"

    def run(self, *arguments: str, status: int | tuple[int, ...] = 0, text: str = "") -> str:
        """Run bothends; return its stdout and stderr. Exits if the status differs or `text` is missing."""
        return self.run_command(str(self.bothends), *arguments, status=status, text=text)

    def run_command(self, *command: str, status: int | tuple[int, ...] = 0, text: str = "") -> str:
        """Run any command of the environment in the folder."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        expected = (status,) if isinstance(status, int) else status
        if done.returncode not in expected or text not in done.stdout:
            sys.exit(
                f"{' '.join(command)}\nexited with {done.returncode}, not {status}, "
                f"or printed no {text!r}:\n{done.stdout}"
            )
        return done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str, ready: str) -> Iterator[re.Match[str]]:
        """Run bothends in the block, once a line matches `ready`; then end it with SIGINT."""
        process = subprocess.Popen(
            [str(self.bothends), *arguments],
            cwd=self.folder,
            env=self.variables | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        printed = ""
        try:
            while (match := re.search(ready, printed)) is None:
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"bothends {' '.join(arguments)} printed no {ready!r}:\n{printed}")
                printed += line
            yield match
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=_TIMEOUT)
            finally:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def server(self, service: str, scheme: str = "tcp", *options: str) -> Iterator[str]:
        """Serve a service in the block. Yields the endpoint."""
        endpoint = f"{scheme}://127.0.0.1:{_free_port()}"
        with self.running("serve", service, endpoint, *options, ready=f"from here: .*{endpoint}"):
            yield endpoint

    def do_serve(self) -> None:
        with self.server("upper") as endpoint:
            self.run("connect", "--send", "hello", endpoint, text="HELLO")
        with self.server("upper", "tls", "--tls-self-signed") as endpoint:
            self.run("connect", "--insecure", "--send", "hello", endpoint, text="HELLO")
        metrics = f"tcp://127.0.0.1:{_free_port()}"
        endpoint = f"tcp://127.0.0.1:{_free_port()}"
        with self.running("serve", "upper", endpoint, "--metrics", metrics, ready="from here: .*tcp"):
            address = metrics.replace("tcp", "http") + "/metrics"
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
                assert b"bothends_connections_open" in answer.read()

    def do_connect(self) -> None:
        self.run("connect", "--resolve", "localhost", "4242", text="0x1092")

    def do_impair(self) -> None:
        proxy = f"tcp://127.0.0.1:{_free_port()}"
        with (
            self.server("upper") as server,
            self.running("impair", proxy, server, "--latency", "1ms", "--no-api", ready=re.escape(proxy[6:])),
        ):
            self.run("connect", "--send", "hello", proxy, text="HELLO")

    def do_trace(self) -> None:
        self.run("new", "server", "--style", "minimal", "traced")
        self.run("new", "client", "--style", "minimal", "traced-client")
        port = _free_port()
        programs = [
            "--server",
            f"traced/server.py {port}",
            "--client",
            f"traced-client/client.py 127.0.0.1 {port}",
        ]
        self.run("trace", "--save", "run.trace", *programs, status=(0, 1) if _can_trace() else _UNAVAILABLE)

    def do_query(self) -> None:
        if (self.folder / "run.trace").exists():
            self.run("query", "run.trace", "calls", text="connect")
        else:
            self.run("query", "run.trace", status=1)

    def do_ping(self) -> None:
        with self.server("echo", "udp") as endpoint:
            self.run("ping", "--udp", "127.0.0.1", endpoint.rpartition(":")[2], "-c", "1", text="1 received")

    def do_wire(self) -> None:
        self.run("wire", "--", "true", status=(0, _UNAVAILABLE))

    def do_sockets(self) -> None:
        with self.server("echo") as endpoint:
            self.run("sockets", "--port", endpoint.rpartition(":")[2], text="LISTEN")

    def do_why(self) -> None:
        with self.server("echo") as endpoint:
            self.run("why", f":{endpoint.rpartition(':')[2]}", status=(0, 1), text="listens on")

    def do_bench(self) -> None:
        with self.server("upper") as endpoint:
            load = ["bench", endpoint, "--connections", "2", "--duration", "0.2", "--warmup", "0.1"]
            self.run(*load, text="faults: none")
            self.run(*load, "--generator", "python", text="faults: none")
            (self.folder / "before.json").write_text(self.run(*load, "--json"))
            self.run("bench", "compare", "before.json", "before.json", text="requests/s")
            self.run(*load, "--html", "page.html", status=_UNAVAILABLE, text="install 'bothends[plots]'")
            self.run(*load, "--cluster", "tcp://127.0.0.1:1", status=_UNAVAILABLE, text="bothends[cluster]")

    def do_check(self) -> None:
        self.run("new", "server", "good")
        server = [str(self.python), "good/server.py", "{port}"]
        self.run("check", "server", "--contract", "upper-tcp", "--", *server, text="PASS")
        self.run("check", "server", "--contract", "upper-tcp", "--only", "tcp-split-write", "--", *server)

    def do_attack(self) -> None:
        with self.server("upper") as endpoint:
            self.run("attack", "--only", "slow-senders", "--duration", "0.5", endpoint, status=(0, 1))

    def do_lab(self) -> None:
        if not _can_trace():
            self.run("lab", "--no-browser", status=_UNAVAILABLE, text="strace")
            return
        with (
            self.running("lab", "--no-browser", ready=r"(http://\S+)") as found,
            urllib.request.urlopen(found[1], timeout=_TIMEOUT) as page,
        ):
            assert b"<title" in page.read()

    def do_new(self) -> None:
        self.run("new", "server", "--lang", "c", "--show", text="#include")

    def do_services(self) -> None:
        self.run("services", text="upper")

    def do_engines(self) -> None:
        self.run("engines", text="epoll")

    def do_demo(self) -> None:
        self.run("demo", text="GRÖSSE")

    def do_mcp(self) -> None:
        self.run("mcp", status=_UNAVAILABLE, text="bothends[mcp]" if _can_trace() else "strace")

    def do_completion(self) -> None:
        self.run("completion", "bash", text="complete -o")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _can_trace() -> bool:
    return shutil.which("strace") is not None


def _best_time(call: Callable[[], object], runs: int = 15) -> float:
    """Return the shortest time that a call takes, in seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def walk(environment: Path) -> Iterator[str]:
    """Use every verb of a virtual environment's bothends. Yields a line for each.

    Raises SystemExit with the output of a command that did something else than expected.
    """
    with tempfile.TemporaryDirectory(prefix="bothends-walk-") as folder:
        installed = Walk(environment, Path(folder))
        described = installed.run("--help", text="Verbs:")
        verbs = re.findall(r"^  ([a-z]+)  ", described.partition("Verbs:")[2], re.M)
        assert len(verbs) > 10, described
        for verb in verbs:
            start = time.perf_counter()
            installed.run(verb, "--help", text="Usage: bothends")
            getattr(installed, f"do_{verb}")()
            yield f"{verb:<12} {time.perf_counter() - start:5.1f} s"
        seconds = _best_time(lambda: installed.run("--help"))
        yield f"bothends --help  {seconds * 1000:.0f} ms"
        assert seconds < MAX_HELP, "bothends --help takes too long"
        # In the process, without the time that Python takes to start.
        code = "import time; a = time.perf_counter(); import bothends; print(time.perf_counter() - a)"
        seconds = min(float(installed.run_command(str(installed.python), "-c", code)) for _ in range(15))
        whole = _best_time(lambda: installed.run_command(str(installed.python), "-c", "import bothends"))
        yield f"import bothends  {seconds * 1000:.1f} ms; with Python's start {whole * 1000:.0f} ms"
        assert whole < MAX_IMPORT or seconds < MAX_IMPORT / 2, "import bothends takes too long"


def main() -> None:
    """Print one line for each verb, or what went wrong."""
    parser = argparse.ArgumentParser(description="Use every verb of an installed bothends.")
    parser.add_argument("environment", type=Path, help="A virtual environment with bothends.")
    for line in walk(parser.parse_args().environment.absolute()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
