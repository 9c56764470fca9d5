"""The messages of the checker under contracts that allow any. Pure.

They mix capitals, small letters and digits, so that a reply in the wrong case differs from the right one. If
the contract's messages are UTF-8, all but the first also have characters of two and three bytes. These have
no upper case, so that functions for bytes and for text agree on it. Lengths differ only in the cases that are
about lengths, so that a mistake with them does not fail all others.
"""

from __future__ import annotations

from typing import Final

from bothends.check.contract import Contract

_FILLER: Final = b"AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
_CHARACTERS: Final = " § 5 € 日本".encode()


def make_message(contract: Contract, number: int, size: int | None = None) -> bytes:
    """Return the `number`-th message, different from all others, of `size` bytes if that is given."""
    start = b"Message %d of the CHECK" % number
    if size is not None:
        return (start + b" " + _FILLER * (size // len(_FILLER) + 1))[:size]
    message = start + _CHARACTERS if number and contract.payload == "utf-8" else start
    return message if len(message) <= contract.limit else start[: contract.limit]
