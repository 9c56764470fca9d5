"""The pictures of the documentation: small, self-contained, used, and each made by a script."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.interop.running import ROOT

PICTURES = ROOT / "docs" / "pictures"
SHOWN = sorted(path for path in PICTURES.iterdir() if path.suffix in (".svg", ".webp", ".png"))
ANIMATED = ["green.svg", "hang.svg", "loss.svg"]
MAX_SIZE = 300_000  # bytes


def test_every_picture_is_on_a_page_and_made_by_a_script() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    scripts = "".join(script.read_text(encoding="utf-8") for script in PICTURES.glob("*.py"))
    for path in SHOWN:
        assert f"pictures/{path.name})" in text, path.name
        assert path.name in scripts, path.name


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_picture_is_small(path: Path) -> None:
    assert 1000 < path.stat().st_size < MAX_SIZE


@pytest.mark.parametrize(
    "path", [each for each in SHOWN if each.suffix == ".svg"], ids=lambda path: path.name
)
def test_picture_loads_nothing_and_runs_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tags = {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(text).iter()}
    assert not tags & {"script", "image", "foreignObject", "use", "a"}
    assert not re.search(r"@import|url\((?!#)|href=|/(?:work|home|root|tmp)/", text)


@pytest.mark.parametrize("name", ANIMATED)
def test_animated_picture_suits_every_reader(name: str) -> None:
    text = (PICTURES / name).read_text(encoding="utf-8")
    assert "@keyframes" in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@media (prefers-reduced-motion: reduce)" in text


def test_first_picture_of_the_readme_names_the_hang() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert first is not None
    assert first[1] == "docs/pictures/hang.svg"
    picture = "".join(ElementTree.parse(ROOT / first[1]).getroot().itertext())
    assert "Deadlock: each end waits for the other" in picture
    assert "In Python: s.shutdown(socket.SHUT_WR)" in picture


def test_green_picture_fails_and_then_passes() -> None:
    picture = "".join(ElementTree.parse(PICTURES / "green.svg").getroot().itertext())
    assert picture.index("FAIL") < picture.index("bothends new server good")
    assert "FAIL" not in picture[picture.index("bothends new server good") :]
    assert "5 of 5 points" in picture
