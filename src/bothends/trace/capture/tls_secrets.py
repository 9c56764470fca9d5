"""The secrets of TLS sessions, as programs write them to the file that SSLKEYLOGFILE names.

    CLIENT_RANDOM <client random> <secret>            the format: RFC 9850, one line for each secret

OpenSSL's own programs, curl, Python's ssl.create_default_context() and NSS write such a file; others ignore
the variable. The lines decrypt the packets, so the file is private, and it is removed at the
end of the run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bothends.osutil.scratch import scratch_folder

VARIABLE: Final = "SSLKEYLOGFILE"
MAX_BYTES: Final = 16 << 20  # of secrets in one run
_LINE: Final = re.compile(rb"[A-Z][A-Z0-9_]{1,63} [0-9A-Fa-f]{2,128} [0-9A-Fa-f]{2,256}\r?\Z")


class SecretsFile:
    """The file, and its lines so far.

    `path`: an existing file of the user's is read on from its end, and kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self._size = 0

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the environment by which programs find the file."""
        return {VARIABLE: str(self.path)}

    def read(self) -> list[str]:
        """Return the lines that have been added since the last call. What is no secret is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MAX_BYTES - self._size)
        except OSError:  # a program has removed it
            return []
        self._offset += len(data)
        self._size += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-MAX_BYTES:]
        return [line.rstrip(b"\r").decode("ascii") for line in lines if _LINE.match(line)]


@contextlib.contextmanager
def secrets_file() -> Iterator[SecretsFile]:
    """Make a private file for the secrets, or use the one that the user's environment names."""
    if wanted := os.environ.get(VARIABLE):
        yield SecretsFile(Path(wanted).absolute())
        return
    with scratch_folder("tls") as folder:
        path = folder / "secrets"
        path.touch(0o600)
        yield SecretsFile(path)
