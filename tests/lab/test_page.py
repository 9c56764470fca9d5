"""The lab in a real browser: write, run, see, stop and hand on, with the mouse and with the keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.lab.running import Lab
from tests.lab.visiting import LONG, Visit
from tests.tools import needs_tool

pytestmark = [needs_tool("chromium"), needs_tool("strace")]
MAX_WEIGHT = 1_000_000  # bytes


def test_pair_is_run_and_each_call_lights_up_its_line(visit: Visit) -> None:
    page = visit.page
    assert "token" not in page.url
    assert visit.weight < MAX_WEIGHT
    visit.run()
    assert visit.screen(1) == "reply: HELLO\nreply: FROM\nreply: BOTH ENDS\nexit status 0\n"
    row = page.locator(".rows .row", has_text='sendto(3, "hello", 5)').first
    row.click()
    marked = (
        page.locator(".program").nth(1).locator(".CodeMirror-code > div", has=page.locator(".line-selected"))
    )
    expect(marked).to_have_text(re.compile(r"server\.sendall"))
    expect(page.locator(".details h2")).to_have_text('sendto(3, "hello", 5) = 5')
    assert page.locator(".rows .row.related").count() >= 2
    page.keyboard.press("ArrowDown")
    expect(page.locator(".rows .row.selected").first).not_to_have_text(re.compile("sendto"))
    page.keyboard.press("Escape")
    expect(page.locator(".rows .row.selected")).to_have_count(0)
    # And back: the cursor in a line marks its calls.
    page.locator(".program").nth(0).locator(".CodeMirror-line", has_text="listener.accept()").click()
    expect(page.locator(".rows .row.of-line").first).to_have_text(re.compile("accept4"))


@pytest.mark.slow
def test_hang_is_explained_while_it_hangs_and_stopped_by_keyboard(visit: Visit) -> None:
    page = visit.page
    page.select_option("#begin", label="Both ends wait: name the cause")
    page.locator(".program").nth(0).locator(".CodeMirror").click()
    page.keyboard.press("Control+Enter")
    expect(page.locator("aside .waits")).to_contain_text(
        "Deadlock: each end waits for the other", timeout=LONG
    )
    expect(page.locator("#state")).to_have_text(re.compile("^nothing moves"))
    page.focus("#stop")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text(re.compile("^ended by Stop"), timeout=LONG)
    page.locator(".finding .jump").first.click()
    expect(page.locator(".rows .row.selected").first).to_be_visible()


@pytest.mark.slow
def test_typed_text_reaches_the_program(visit: Visit) -> None:
    page = visit.page
    page.select_option("#begin", label="Python, TCP, minimal")
    page.click("#run")
    expect(page.locator(".screen pre").nth(1)).to_contain_text("Input a sentence:", timeout=LONG)
    page.locator(".screen input").nth(1).fill("abc")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text(re.compile("^ended"), timeout=LONG)
    assert "From server: ABC" in visit.screen(1)


@pytest.mark.slow
def test_what_programs_print_and_send_stays_text(visit: Visit) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    visit.write(0, (
        "import socket\nlistener = socket.create_server(('127.0.0.1', 12000))\n"
        "connection, _ = listener.accept()\nprint(connection.recv(100).decode())\n"
    ))  # fmt: skip
    visit.write(1, (
        "import socket\nserver = socket.create_connection(('127.0.0.1', 12000))\n"
        f"server.sendall(b'{hostile}')\nprint('{hostile}\\x1b[31m')\n"
    ))  # fmt: skip
    visit.run()
    assert visit.screen(0).startswith(hostile)
    assert visit.screen(1).startswith(hostile + "\\x1b[31m")
    expect(visit.page.locator(".rows")).to_contain_text("<img src=x")
    assert visit.page.locator("main img, main script, .rows img").count() == 0


@pytest.mark.slow
@needs_tool("cc")
def test_errors_of_the_compiler_stand_at_their_lines(visit: Visit) -> None:
    visit.write(1, "int main(void) {\n  return x;\n}\n", file="client.c")
    visit.run()
    expect(visit.page.locator("#state")).to_have_text("client: it could not be built")
    expect(visit.page.locator(".problem.error")).to_contain_text("undeclared")
    expect(visit.page.locator(".line-problem")).to_have_count(1)


@pytest.mark.slow
def test_link_holds_the_programs_and_runs_nothing(visit: Visit) -> None:
    visit.write(1, "print('from a link')\n")
    visit.page.click("#link")
    expect(visit.page.locator("#link")).to_have_text("Copied")
    link = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert link.startswith(f"http://{visit.lab.host}/#1.")
    other = visit.open(link)
    expect(other.locator(".program").nth(1).locator(".CodeMirror-code")).to_contain_text("from a link")
    expect(other.locator(".rows li")).to_have_count(0)
    damaged = visit.open(link[: len(link) // 2])
    expect(damaged.locator("aside .findings")).to_contain_text("damaged")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_its_text_has_contrast(browser: Browser, lab: Lab, width: int, scheme: str) -> None:
    from tests.trace.test_page import CONTRAST

    visit = Visit(browser, lab, width, scheme)
    visit.run()
    visit.page.locator(".rows .row[data-event]").first.click()
    assert visit.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    weak = {pair: ratio for pair, ratio in visit.page.evaluate(CONTRAST).items() if ratio < 4.5}
    assert weak == {}
    assert visit.problems == []
    visit.context.close()
