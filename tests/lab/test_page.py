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


def test_run_is_stepped_and_played_again_with_the_keyboard(visit: Visit) -> None:
    page = visit.page
    visit.run()
    now = page.locator(".rows li.now")
    page.locator(".program").nth(0).locator(".CodeMirror").click()
    page.keyboard.press("Alt+ArrowDown")
    expect(now).to_have_attribute("aria-current", "true")
    page.keyboard.press("Alt+ArrowDown")
    expect(now).to_contain_text("bind(")
    expect(page.locator(".moment")).to_contain_text("127.0.0.1:12000")
    # At each row, both programs show where they are.
    page.locator(".rows li", has_text='recvfrom(4, 1024) = 5 "hello"').first.click()
    expect(page.locator(".program.server .line-selected")).to_have_count(1)
    expect(page.locator(".program.client .line-current")).to_have_count(1)
    expect(page.locator(".moment .figures").first).to_have_text("← 5 sent, 5 received (bytes)")
    page.keyboard.press("Home")
    page.select_option(".speed", "10")
    page.focus(".rows li.now")
    page.keyboard.press(" ")
    expect(page.locator(".play")).to_have_attribute("aria-label", "Pause (space)")
    expect(now).to_contain_text("exit status 0", timeout=LONG)
    expect(page.locator(".play")).to_have_attribute("aria-label", "Play again (space)")
    expect(page.locator(".playing")).to_have_count(0)


@pytest.mark.slow
def test_path_is_set_by_sliders_and_programs_are_added(visit: Visit) -> None:
    page = visit.page
    page.click("#path > summary")
    page.fill("#delay", "20")
    page.fill("#rate", "500")
    page.keyboard.press("Escape")
    expect(page.locator("#path > summary")).to_have_text("Path delay 20 ms, rate 500 KB/s, seed 1")
    visit.run()
    expect(page.locator(".rows .arrow.sent").first).to_be_attached()
    page.click("#add-client")
    expect(page.locator(".program h2")).to_have_text(["server", "client", "client 2"])
    page.get_by_label("Remove this program").nth(2).click()
    expect(page.locator(".program h2")).to_have_text(["server", "client"])


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
def test_uncaught_exception_stands_at_its_line(visit: Visit) -> None:
    visit.write(1, "import socket\n\ndef dial():\n    socket.create_connection(('127.0.0.1', 9))\n\ndial()\n")
    visit.run()
    expect(visit.page.locator(".problem.error")).to_contain_text("ConnectionRefusedError: [Errno 111]")
    expect(visit.page.locator(".line-problem")).to_have_count(1)
    visit.write(1, "print(1\n")
    visit.run()
    expect(visit.page.locator(".problem.error")).to_contain_text("SyntaxError")


@pytest.mark.slow
def test_output_follows_the_selected_row(visit: Visit) -> None:
    page = visit.page
    server = "import socket\nsocket.create_server(('127.0.0.1', 12000)).accept()\n"
    connect = "socket.create_connection(('127.0.0.1', 12000))"
    wait = "time.sleep(0.3)"
    client = ["import socket, time", "print('begins')", wait, connect, wait, "print('late')"]
    visit.write(0, server)
    visit.write(1, "\n".join(client))
    visit.run()
    late = page.locator(".screen .later", has_text="late")
    expect(late).to_have_count(0)
    page.locator(".row[data-event]", has_text="connect(3").first.click()
    expect(late).to_have_count(1)
    expect(page.locator(".screen .later", has_text="begins")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(late).to_have_count(0)


@pytest.mark.slow
def test_file_that_is_dropped_on_a_program_takes_its_place(visit: Visit) -> None:
    page = visit.page

    def drop(files: dict[str, str], place: str) -> None:
        page.evaluate(
            """([files, place]) => {
                const dropped = new DataTransfer();
                for (const [name, text] of Object.entries(files)) dropped.items.add(new File([text], name));
                const options = { dataTransfer: dropped, bubbles: true, cancelable: true };
                [...document.querySelectorAll(place)].at(-1).dispatchEvent(new DragEvent("drop", options));
            }""",
            [files, place],
        )

    server = visit.text(0)
    drop({"my client.py": "a = 1\n"}, ".CodeMirror-scroll")
    expect(page.locator(".file").nth(1)).to_have_value("my_client.py")
    assert (visit.text(0), visit.text(1)) == (server, "a = 1\n")
    drop({"client.c": "int b;\n", "s.py": "s.listen()\n"}, "#picture")
    expect(page.locator(".file").nth(0)).to_have_value("s.py")
    expect(page.locator(".program h2")).to_have_text(["server", "client"])
    drop({"x.bin": "\0\1"}, "#picture")
    expect(page.locator(".findings")).to_contain_text("x.bin cannot be opened: it is not text")
    assert visit.text(0) == "s.listen()\n"


@pytest.mark.slow
def test_address_that_is_no_link_is_said(visit: Visit) -> None:
    page = visit.open(f"http://{visit.lab.host}/#garbage")
    expect(page.locator(".findings")).to_contain_text("The link is damaged")


@pytest.mark.slow
def test_link_holds_the_programs_and_runs_nothing(visit: Visit) -> None:
    visit.write(1, "print('from a link')\n")
    visit.page.click("#path > summary")
    visit.page.fill("#loss", "7")
    visit.page.fill("#seed", "4242")
    visit.page.fill("#seconds", "9")
    visit.page.click("#link")
    expect(visit.page.locator("#link")).to_have_text("Copied")
    link = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert link.startswith(f"http://{visit.lab.host}/#1.")
    other = visit.open(link)
    expect(other.locator(".program").nth(1).locator(".CodeMirror-code")).to_contain_text("from a link")
    expect(other.locator(".rows li")).to_have_count(0)
    expect(other.locator("#path > summary")).to_have_text("Path loss 7 %, seed 4242")
    expect(other.locator("#seconds")).to_have_value("9")
    damaged = visit.open(link[: len(link) // 2])
    expect(damaged.locator("aside .findings")).to_contain_text("damaged")


# The elements that take the focus and that a screen reader cannot name.
NAMELESS = """() => [...document.querySelectorAll("button, a, input, select, summary, [tabindex], [role]")]
  .filter((each) => each.offsetParent !== null && each.tagName !== "LI" && !each.closest(".CodeMirror"))
  .filter((each) => !each.getAttribute("aria-label") && !each.getAttribute("aria-labelledby"))
  .filter((each) => !each.textContent.trim() && !(each.labels && each.labels.length))
  .map((each) => each.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("name", ["run", "compare"])
def test_screen_reader_can_name_everything_and_keys_reach_it(visit: Visit, name: str) -> None:
    page = visit.page
    if name == "run":
        page.click("#path > summary")
    else:
        page.click(f"#tab-{name}")
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Escape")
    page.focus(f"#tab-{name}")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
        if page.evaluate("() => !!document.activeElement.closest('.CodeMirror')"):
            page.keyboard.press("Escape")
    wanted = {"run", "begin", "link", "splitter"} if name == "run" else {"run"}
    assert wanted <= reached


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
