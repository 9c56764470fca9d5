"""Two runs beside each other on the page."""

from __future__ import annotations

import json

import msgspec
import pytest
from playwright.sync_api import expect

from bothends.lab.comparing import compare_runs, parse_comparison
from tests.lab.visiting import LONG, Visit
from tests.tools import needs_tool


def request(first: str, second: str, *, steps: tuple[str, str] = ("a(1)", "a(2)")) -> bytes:
    """Return a request that compares two runs of a client, with one step each."""
    runs = [
        {
            "programs": [{"kind": "client", "file": "client.py", "text": text}],
            "steps": [["client", step, 1, None, 2]],
        }
        for text, step in zip((first, second), steps, strict=True)
    ]
    return json.dumps({"first": runs[0], "second": runs[1]}).encode()


def test_lines_of_programs_and_steps_are_compared() -> None:
    found = compare_runs(parse_comparison(request("one\ntwo\n", "one\nthree\n")))
    assert [each[1] for each in found["pairs"]] == ["changed"]
    [program] = found["programs"]
    assert program["file"] == "client.py"
    assert ("-", "two") in program["lines"]
    assert ("+", "three") in program["lines"]
    assert compare_runs(parse_comparison(request("one", "one", steps=("a", "a"))))["programs"] == []


def test_outputs_are_compared_without_ephemeral_ports_and_folders() -> None:
    def compared(first: str, second: str) -> list[tuple[int, list[str]]]:
        data = json.loads(request("one", "one", steps=("a", "a")))
        data["first"]["output"], data["second"]["output"] = ["same\n", first], ["same\n", second]
        found = compare_runs(parse_comparison(json.dumps(data).encode()))["outputs"]
        return [(each["program"], [mark + line for mark, line in each["lines"]][1:]) for each in found]

    assert (
        compared(
            "port 40001 in /tmp/bothends-lab-0-ab/1/c.py\n", "port 50002 in /tmp/bothends-lab-0-x_/0/c.py\n"
        )
        == []
    )
    assert compared("port 12000\n", "port 12001\n") == [(1, ["-port 12000", "+port 12001"])]
    assert compared("", "exit status 1\n") == [(1, ["+exit status 1"])]


@pytest.mark.parametrize(
    "data", [b"", b"{}", request("", "").replace(b'"client", ', b"1, "), b'{"first": 1}']
)
def test_malformed_requests_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_comparison(data)


@pytest.mark.slow
@needs_tool("chromium")
@needs_tool("strace")
def test_two_runs_are_shown_beside_each_other(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-compare")
    expect(page.locator(".comparison .empty")).to_contain_text("Run the programs twice")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#view-run")).to_be_visible()
    visit.run()
    visit.write(1, visit.text(1).replace('"from"', '"to"'))
    visit.run()
    page.click("#tab-compare")
    expect(page.locator(".changed-program .added").first).to_contain_text('"to"')
    changed = page.locator(".pair.changed", has_text="sendto(3")
    expect(changed.first).to_contain_text('"from"')
    expect(changed.first.locator("mark").nth(1)).to_contain_text("to")
    expect(page.locator(".pair.same").first).to_be_attached()
    changes = page.locator(".changed-program", has_text="Output of client")
    expect(changes.locator(".added")).to_contain_text("reply: TO")
    expect(page.locator(".summary")).to_contain_text("the output of server and client differs")
    page.click(".pair.heads button >> nth=0")
    expect(page.locator("#view-run")).to_be_visible()
    assert '"from"' in visit.text(1)
    expect(page.locator(".rows")).to_contain_text('"from"')
    page.click("#tab-compare")
    page.get_by_role("button", name="Run with another seed").click()
    expect(page.locator("#first-run option")).to_have_count(3, timeout=LONG)


@pytest.mark.slow
@needs_tool("chromium")
@needs_tool("strace")
def test_two_engines_are_compared(visit: Visit) -> None:
    page = visit.page
    for engine in ("epoll", "threads"):
        page.select_option("#begin", label=f"Engine {engine}")
        visit.run()
        assert f"engine {engine}" in visit.screen(0)
        assert "reply: BOTH ENDS" in visit.screen(1)
    page.click("#tab-compare")
    expect(page.locator(".changed-program .added").first).to_contain_text("--engine threads")
    expect(page.locator(".lane-steps", has_text="client → server").locator(".counts")).to_contain_text(
        "the same"
    )
    expect(page.locator(".lane-steps .differ").first).to_be_visible()
