"""What `--wire` says, at `trace`, `serve`, `connect` and `bench`: a path in one word."""

from __future__ import annotations

import secrets
from typing import Final

import click

from bothends.toxics import registry

_TOXIC_ALIASES: Final = {"delay": "latency", "rate": "bandwidth"}
_WIRE_SETTINGS: Final = ("mtu", "seed", "down", "no-icmp")


class WirePath:
    """What `--wire` asks for: toxics, as on the command line of `bothends wire`, and the wire's own settings.

    "loss=5%,delay=40ms,jitter=5ms,mtu=1300": a name that is no toxic's and none of `mtu`, `seed`, `down` and
    `no-icmp` is an attribute of the toxic before it. Raises UsageError.
    """

    def __init__(self, text: str) -> None:
        self.toxics: dict[str, list[str]] = {}
        self.mtu, self.seed, self.icmp = 1500, secrets.randbits(32), True
        self.link_downs: list[str] = []
        last = ""
        for item in filter(None, (each.strip() for each in text.split(","))):
            key, _, value = item.partition("=")
            name = _TOXIC_ALIASES.get(key, key).replace("-", "_")
            if key in _WIRE_SETTINGS:
                self._apply_setting(key, value)
            elif name in registry.TOXICS:
                self.toxics.setdefault(name, []).append(value)
                last = name
            elif last:
                self.toxics[last][-1] = ",".join(filter(None, (self.toxics[last][-1], item)))
            else:
                raise click.UsageError(f"--wire: {key!r} is no toxic; for example loss=5%,delay=40ms")

    def _apply_setting(self, key: str, value: str) -> None:
        if key == "down":
            self.link_downs.append(value)
        elif key == "no-icmp":
            self.icmp = False
        elif not value.isdecimal() or (key == "mtu" and not 68 <= int(value) <= 1500):
            wanted = "68 to 1500" if key == "mtu" else "a number"
            raise click.UsageError(f"--wire: {key}={value}: {wanted}")
        elif key == "mtu":
            self.mtu = int(value)
        else:
            self.seed = int(value)
