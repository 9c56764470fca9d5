"""Reading the files in which a user says what is wanted: configurations, scenarios, contracts. Rank 1."""

from __future__ import annotations

from pathlib import Path

from bothends.errors import ConfigurationError, SystemRefused


def read_text(path: Path) -> str:
    """All of a UTF-8 text file.

    Raises:
        SystemRefused: it can't be read.
        ConfigurationError: it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SystemRefused("read", str(path), error.errno or 0) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", "", f"it is no UTF-8 at byte {error.start}") from error
