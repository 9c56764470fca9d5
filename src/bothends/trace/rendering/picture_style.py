"""How a picture of a trace looks: its theme, its colours and the width of its lanes. Imports nothing else.

The commands need it before they know whether there is a picture to draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

LANE_WIDTH: Final = 400  # pixels
LARGE_LANE_WIDTH: Final = 290  # pixels: fewer characters, so that they are larger on a slide

Theme: TypeAlias = Literal["auto", "light", "dark"]

PALETTES: Final[dict[str, dict[str, str]]] = {
    "light": {
        "text": "#1b1f24",
        "background": "#ffffff",
        "bar": "#c4cad2",
        "waits": "#8a94a3",
        "quiet": "#68717d",
        "error": "#b3261e",
        "data": "#1a7f37",
        "open": "#0b6a88",
        "end": "#8f5a00",
        "state": "#2f5bb7",
        "note": "#7d3c98",
    },
    "dark": {
        "text": "#e6e9ee",
        "background": "#101418",
        "bar": "#39424e",
        "waits": "#66717f",
        "quiet": "#98a2b0",
        "error": "#ff8a80",
        "data": "#6fdd8b",
        "open": "#6fd3ee",
        "end": "#f2bf5e",
        "state": "#9db9ff",
        "note": "#dba6f2",
    },
}
"""The colours of each theme, by style. Styles that are not here have the colour of another: `COLOUR_OF`."""

COLOUR_OF: Final[Mapping[str, str]] = {"": "text", "lane": "text", "time": "quiet", "reset": "error"}


@dataclass(frozen=True, slots=True)
class PictureStyle:
    """How a picture looks: `theme`, `is_large` for slides, `is_animated`."""

    theme: Theme = "auto"
    is_large: bool = False
    is_animated: bool = False

    @property
    def lane_width(self) -> int:
        """The width of a lane, in pixels."""
        return LARGE_LANE_WIDTH if self.is_large else LANE_WIDTH
