"""Reading the files in which a user says what is wanted: configurations, scenarios, contracts. Rank 1."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bothends.errors import ConfigurationError, SystemCallFailed

MAX_FILE_SIZE: Final = 16 << 20  # bytes: nobody writes so much, and a device may have no end


def read_text(path: Path) -> str:
    """All of a UTF-8 text file.

    Raises:
        SystemRefused: it can't be read.
        ConfigurationError: it is no UTF-8, or longer than `LONGEST`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise ConfigurationError(str(path), "", "", f"it is longer than {MAX_FILE_SIZE:,} bytes")
        return data.decode()
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", "", f"it is no UTF-8 at byte {error.start}") from error
