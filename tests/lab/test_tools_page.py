"""The views Judge, Measure, Sockets and Lessons, and a class, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.lab.running import Lab, running_lab
from tests.lab.test_judging import UPPER
from tests.lab.test_lessons import LESSONS
from tests.lab.visiting import LONG, Visit
from tests.tools import needs_tool

pytestmark = [needs_tool("chromium"), needs_tool("strace")]
VIEWS = ["judge", "measure", "sockets", "lessons"]


def write(page: Page, number: int, text: str) -> None:
    page.locator(".program").nth(number).locator(".CodeMirror").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_lesson_turns_green_when_it_is_done(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-lessons")
    expect(page.locator(".lesson-entry")).to_have_count(len(LESSONS))
    page.locator(".lesson-entry").first.click()
    expect(page.locator("#lesson h2")).to_contain_text("A capitaliser over UDP")
    page.click("#run")
    expect(page.locator("#lesson .check.failed")).to_have_count(1, timeout=LONG)
    expect(page.locator("#lesson .check.failed .happened")).to_have_text(
        "its last line is: udp sends datagrams"
    )
    solution = next(iter(LESSONS.values())).solution[0].text
    write(page, 0, solution)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#lesson .check.passed")).to_have_count(2, timeout=LONG)
    page.locator("#lesson .next").click()
    expect(page.locator("#lesson h2")).to_contain_text("The same over TCP")
    expect(page.locator("#lesson .check.passed")).to_have_count(0)
    page.locator("#lesson .remove").click()
    expect(page.locator("#lesson")).to_be_hidden()
    expect(page.locator(".lesson-list .passed")).to_have_count(1)


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a busy machine each step of a case has more time
def test_failure_is_judged_explained_and_traced(visit: Visit) -> None:
    page = visit.page
    write(page, 0, UPPER)
    page.click("#tab-judge")
    page.locator(".judge button.main").click()
    expect(page.locator("#state")).to_have_text(re.compile("^judging|^judged"))
    expect(page.locator("#state")).to_have_text(re.compile(r"^judged: \d+ failed"), timeout=6 * LONG)
    case = page.locator(".case", has=page.locator(".case-id", has_text=re.compile("^tcp-reset$")))
    expect(case).to_have_class(re.compile("FAIL"))
    case.locator("summary").click()
    expect(case.locator(".case-body dl")).to_contain_text("ConnectionResetError at line 5 of server.py")
    expect(case.locator(".transcript tr").first).to_be_visible()
    case.locator(".show-timeline").click()
    expect(page.locator("#state")).to_have_text("traced: tcp-reset", timeout=LONG)
    expect(page.locator(".judge-picture .finding").first).to_contain_text("ended the server")
    page.locator(".judge-picture .row[data-event]", has_text="ECONNRESET").first.click()
    expect(page.locator(".judge-picture .details h2")).to_contain_text("ECONNRESET")
    assert page.locator("#picture .row[data-event]").count() == 0  # the run's own picture is another


@pytest.mark.slow
def test_contract_is_written_and_its_error_is_shown(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-judge")
    page.click("text=Write your own")
    expect(page.locator(".contract-text")).to_have_value(re.compile('service = "upper"'))
    page.fill(".contract-text", 'transport = "tcp"\nframing = "lines"\n[answer]\nfunction = "os:system"\n')
    page.locator(".judge button.main").click()
    expect(page.locator(".judge .problem-text")).to_contain_text("not in a Python file", timeout=LONG)


@pytest.mark.slow
def test_measurement_is_drawn_with_its_warmup_and_its_spread(visit: Visit) -> None:
    page = visit.page
    write(page, 0, UPPER)
    page.click("#tab-measure")
    for name, value in (("connections", "1"), ("warm-up", "0.2"), ("rounds", "2")):
        page.get_by_label(name, exact=False).first.fill(value)
    page.get_by_label("seconds", exact=True).fill("0.6")
    page.locator(".measure button.main").click()
    expect(page.locator(".plots .warmup")).to_be_attached(timeout=LONG)
    expect(page.locator("#state")).to_have_text("measured", timeout=3 * LONG)
    figures = page.locator(".plots figure")
    expect(figures).to_have_count(3)
    expect(figures.nth(0).locator("polyline")).to_have_count(6)  # three targets, two rounds
    expect(figures.nth(1).locator("circle")).to_have_count(6)
    expect(figures.nth(1).locator(".median")).to_have_count(3)
    zero = figures.nth(1).locator("text.tick").first
    expect(zero).to_have_text("0")
    expect(page.locator(".plots tbody tr")).to_have_count(3)


@pytest.mark.slow
def test_sockets_and_the_deadlock_are_shown_while_it_hangs(visit: Visit) -> None:
    page = visit.page
    page.select_option("#begin", label="Both ends wait: name the cause")
    page.click("#run")
    page.click("#tab-sockets")
    expect(page.locator(".sockets tbody tr", has_text="ESTABLISHED")).to_have_count(2, timeout=LONG)
    expect(page.locator(".why .problem-line")).to_contain_text("Each end waits for the other", timeout=LONG)
    page.click("#stop")
    expect(page.locator("#state")).to_have_text(re.compile("^ended by Stop"), timeout=LONG)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_views_fit_and_their_text_has_contrast(browser: Browser, lab: Lab, width: int, scheme: str) -> None:
    from tests.trace.test_page import CONTRAST

    visit = Visit(browser, lab, width, scheme)
    for view in VIEWS:
        visit.page.click(f"#tab-{view}")
        expect(visit.page.locator(f"#view-{view}")).to_be_visible()
        if view == "lessons":
            visit.page.locator(".lesson-entry").first.click()
            visit.page.locator("#lesson .lesson-text p").first.wait_for()
        assert visit.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, view
        weak = {pair: ratio for pair, ratio in visit.page.evaluate(CONTRAST).items() if ratio < 4.5}
        assert weak == {}, view
    assert visit.problems == []
    visit.context.close()


@pytest.mark.slow
def test_teacher_sees_where_students_are(browser: Browser, tmp_path: Path) -> None:
    with running_lab("--class", "--state", str(tmp_path)) as room:
        ann = Visit(browser, room)
        ann.page.fill(".class-name input", "Ann <b>")
        ann.page.keyboard.press("Tab")
        ann.page.click("#tab-lessons")
        ann.page.locator(".lesson-entry").first.click()
        write(ann.page, 0, "print('mine')\n")
        teacher = browser.new_context()
        page = teacher.new_page()
        page.goto(room.teacher_address)
        row = page.locator("#students tbody tr")
        expect(row).to_contain_text("Ann <b>", timeout=LONG)
        expect(row).to_contain_text("A capitaliser over UDP", timeout=LONG)
        row.locator("button").click()
        expect(page.locator("#work")).to_contain_text("print('mine')")
        assert page.locator("#students b, #work b").count() == 0
        ann.page.reload()  # what was kept is there again
        expect(ann.page.locator(".program").first.locator(".CodeMirror-code")).to_contain_text(
            "mine", timeout=LONG
        )
        teacher.close()
        assert ann.problems == []
        ann.context.close()


def test_work_is_sent_again_until_the_connection_is_open(visit: Visit) -> None:
    assert visit.page.evaluate(
        """async () => {
            const { joinClass } = await import("/static/student.js");
            const { Connection } = await import("/static/connection.js");
            const sent = [];
            let isOpen = false;
            const connection = { send(message) { sent.push([message.type, isOpen]); return isOpen; } };
            const state = () => ({ programs: [], seconds: 9, path: null });
            joinClass({ number: 1, name: "Ann" }, { connection, state }, () => "run");
            const leave = () => dispatchEvent(new Event("pagehide"));
            leave(); leave();
            isOpen = true;
            leave(); leave();
            return [sent, new Connection(() => {}, () => {}).send({ type: "keep" })];
        }"""
    ) == [[["keep", False], ["keep", False], ["keep", True]], False]
