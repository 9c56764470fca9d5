"""Read text files that users write: configurations, scenarios, contracts. Rank 1."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

from bothends.errors import ConfigurationError, SystemCallFailed

MAX_FILE_SIZE: Final = 16 << 20  # bytes; far above any real file. Bounds reads from devices such as /dev/zero


def read_text(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        SystemCallFailed: the file cannot be read.
        ConfigurationError: it is not UTF-8, or longer than MAX_FILE_SIZE.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise ConfigurationError(str(path), "", "", f"longer than {MAX_FILE_SIZE:,} bytes")
        return data.decode()
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", "", f"invalid UTF-8 at byte {error.start}") from error


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """Parse the text of a TOML file. Raises ConfigurationError if it is invalid, or nested too deeply."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "inside ''' ''' a backslash is itself" if "\\" in str(error) else "see https://toml.io"
        raise ConfigurationError(file, "", "", f"invalid TOML: {error}", hint) from error
    except RecursionError as error:
        raise ConfigurationError(file, "", "", "nested too deeply") from error


def parse_json(text: str, file: str) -> Any:
    """Parse the text of a JSON file. Raises ConfigurationError if it is invalid, or nested too deeply."""
    try:
        return json.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise ConfigurationError(file, "", "", f"invalid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(file, "", "", "nested too deeply") from error
