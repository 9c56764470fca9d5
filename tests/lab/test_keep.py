"""What is kept of a run: a file, a page that replays it without a server, and a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from bothends.lab import recording
from tests.lab.firefox import running_firefox
from tests.lab.running import Lab
from tests.lab.visiting import Visit
from tests.tools import needs_tool

needs_browser = needs_tool("chromium")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def lab_file(**changed: Any) -> dict[str, Any]:
    """Return a file of the lab: a client that sends to a server, and hostile text in every place."""
    up, sent = "ESTABLISHED", f'sendto(3, "{HOSTILE}", 5) = 5'
    heads = [[0, "server 11", "lane"], [1, "client 12", "lane"]]
    rows = [
        {"at": None, "bars": ["runs", "runs"], "cells": heads, "event": None, "header": True},
        {"at": 1000, "bars": ["runs", "runs"], "cells": [[1, sent, ""]], "event": 1,
         "states": [[2, up, 5, 0, 5, 0, None, False]]},
        {"at": 2000, "bars": ["runs", "waits"], "cells": [], "event": 2,
         "arrow": [1, 0, "PSH ACK 0-5", "data", "whole", ""],
         "states": [[2, up, 5, 0, 0, 0, None, False], [3, up, 0, 0, 0, 5, None, False]]},
    ]  # fmt: skip
    ends = {"family": "inet", "kind": "stream", "listens": False}
    run = {
        "roles": ["server", "client"], "rows": rows, "began": 1_000_000,
        "events": {
            "1": {"title": HOSTILE, "explanation": HOSTILE, "program": 1, "line": 2, "causes": []},
            "2": {"title": "a packet", "causes": [1]},
        },
        "sockets": {
            "2": {"role": "client", "local": "127.0.0.1:4", "peer": "127.0.0.1:5", **ends},
            "3": {"role": "server", "local": "127.0.0.1:5", "peer": "127.0.0.1:4", **ends},
        },
        "output": [[1, 1_000_001, f"{HOSTILE}\n", ""], [1, 1_000_009, "exit status 0\n", "how"]],
        "ended": {"reason": "", "findings": [], "waits": [HOSTILE], "notes": [HOSTILE], "seconds": 1.5},
    }  # fmt: skip
    programs = [
        {"kind": "server", "file": "server.py", "text": "import socket\n", "arguments": "12000"},
        {
            "kind": "client",
            "file": "client.py",
            "text": f"import socket\n# {HOSTILE}\n",
            "arguments": HOSTILE,
        },
    ]
    return {"bothends-lab": 1, "programs": programs, "seconds": 30, "run": run, **changed}


def parsed(**changed: Any) -> recording.LabFile:
    return recording.parse(json.dumps(lab_file(**changed)).encode())


def test_page_holds_text_of_programs_only_in_its_data() -> None:
    page = recording.render_page(parsed())
    assert HOSTILE not in page
    assert "alert(1)" not in page
    assert page.count("<script") == 2
    assert "import " not in page.partition("<script>")[2]
    assert "unsafe" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_picture_is_valid_and_escaped() -> None:
    file = parsed()
    assert file.run is not None
    picture = recording.render_picture(file.run)
    root = ElementTree.fromstring(picture)
    assert "<img" not in picture
    assert any(HOSTILE in (each.text or "") for each in root.iter())


def test_what_is_wrong_with_a_file_is_said_in_one_line() -> None:
    file = lab_file()
    file["programs"][0]["\n\x1b[2J"] = 1
    with pytest.raises(msgspec.DecodeError) as raised:
        recording.parse(json.dumps(file).encode())
    assert "\\n\\x1b[2J" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "changed",
    [
        {"bothends-lab": 2},
        {"programs": []},
        {"programs": [{"kind": "server", "file": "../server.py", "text": ""}]},
        {"seconds": 1e9},
        {"path": {"loss": 200}},
        {"run": {}},
    ],
)
def test_file_that_is_damaged_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        parsed(**changed)


@pytest.mark.parametrize("style", ["<b>", "data", "state"])
def test_style_of_a_row_is_one_of_the_timeline(style: str) -> None:
    file = lab_file()
    file["run"]["rows"][1]["cells"][0][2] = style
    data = json.dumps(file).encode()
    if style == "<b>":
        with pytest.raises(msgspec.DecodeError):
            recording.parse(data)
    else:
        assert recording.parse(data).run is not None


def test_programs_are_servers_and_clients_by_their_names() -> None:
    file = recording.of_programs({"a.py": b"x", "b.py": b"y", "MyServer.java": b"z"})
    assert [(each.kind, each.file) for each in file.programs] == [
        ("server", "a.py"), ("client", "b.py"), ("server", "MyServer.java"),
    ]  # fmt: skip
    assert recording.of_programs({"client.c": b""}).programs[0].kind == "client"
    for texts in ({"a b.py": b""}, {"a": b""}, {f"a{number}.py": b"" for number in range(7)}):
        with pytest.raises(msgspec.ValidationError):
            recording.of_programs(texts)


def test_file_is_the_same_after_it_was_read() -> None:
    file = parsed()
    assert recording.parse(msgspec.json.encode(recording.to_json(file))) == file


def test_command_line_writes_page_and_picture(tmp_path: Path) -> None:
    path, page, picture = (tmp_path / name for name in ("run.lab", "run.html", "run.svg"))
    path.write_text(json.dumps(lab_file()))

    def run_lab(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bothends", "lab", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run_lab(str(path), "--page", str(page), "--svg", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text(encoding="utf-8") == recording.render_page(parsed())
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    path.write_text(json.dumps(lab_file(run=None)))
    assert run_lab(str(path), "--page", str(page)).returncode == 2
    program = tmp_path / "no-suffix"
    program.write_text("")
    assert "not programs for the lab" in run_lab(str(program), "--page", str(page)).stderr
    path.write_text("{}")
    assert "not a file of the lab" in run_lab(str(path), "--page", str(page)).stderr


def open_offline(browser: Browser, file: Path) -> tuple[Page, list[str]]:
    """Open a page of a file, without a network. Returns it, and what goes wrong or is requested on it."""
    context = browser.new_context(offline=True)
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: problems.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    return page, problems


def check_replay(browser: Browser, file: Path) -> None:
    """Walk through the page of `lab_file`."""
    page, problems = open_offline(browser, file)
    expect(page.locator(".rows li[data-event]")).to_have_count(2)
    assert page.locator(".screen pre").nth(1).inner_text() == f"{HOSTILE}\nexit status 0\n"
    page.locator(".rows li[data-event]").first.click()
    expect(page.locator(".line-selected")).to_contain_text("# </script>")
    expect(page.locator(".details h2")).to_have_text(HOSTILE)
    assert page.locator(".screen pre").nth(1).inner_text() == f"{HOSTILE}\n"
    expect(page.locator(".figures")).to_contain_text("5 not acknowledged")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".figures")).to_contain_text("5 unread")
    page.keyboard.press("Home")
    page.select_option(".speed", "1000")
    page.click(".play")
    expect(page.locator(".rows li.now")).to_contain_text("PSH ACK")
    page.locator(".source-text li.called").click()
    expect(page.locator(".rows li.of-line")).to_have_count(1)
    assert page.locator("img").count() == 0
    assert problems == []
    page.context.close()


@needs_browser
def test_run_replays_from_a_file_without_a_network(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(recording.render_page(parsed()), encoding="utf-8")
    check_replay(browser, file)


@pytest.mark.slow
@needs_tool("firefox")
def test_run_replays_in_firefox(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(recording.render_page(parsed()), encoding="utf-8")
    with running_firefox(tmp_path) as firefox:
        firefox.open(file.as_uri())
        firefox.wait_for(".rows li[data-event]")
        text = firefox.evaluate("document.querySelectorAll('.screen pre')[1].textContent")
        assert text == f"{HOSTILE}\nexit status 0\n"
        firefox.evaluate("document.querySelector('.rows li[data-event]').click()")
        assert firefox.evaluate("document.querySelector('.details h2').textContent") == HOSTILE
        assert "5 not acknowledged" in firefox.evaluate("document.querySelector('.figures').textContent")
        assert firefox.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.slow
@needs_browser
@needs_tool("strace")
def test_run_is_saved_and_opened_again(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.run()
    count = page.locator(".rows li").count()
    saved = {}
    for name, suffix in (("file", "lab"), ("page", "html"), ("svg", "svg"), ("png", "png")):
        page.click("#save > summary")
        with page.expect_download() as download:
            page.click(f"#save-{name}")
        assert download.value.suggested_filename == f"run.{suffix}"
        saved[name] = tmp_path / f"run.{suffix}"
        download.value.save_as(saved[name])
    assert saved["png"].read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(saved["svg"])
    replay, problems = open_offline(visit.context.browser, saved["page"])  # type: ignore[arg-type]
    expect(replay.locator(".rows li")).to_have_count(count)
    assert problems == []
    replay.context.close()
    other = visit.open(visit.lab.address)
    other.set_input_files("#chooser", saved["file"])
    expect(other.locator(".rows li")).to_have_count(count)
    expect(other.locator(".screen pre").nth(1)).to_contain_text("reply: BOTH ENDS")
    other.set_input_files("#chooser", FilePayload(name="x.lab", mimeType="", buffer=b"{}"))
    expect(other.locator("aside .findings")).to_contain_text("x.lab cannot be opened")
    sources = (("MyClient.java", b"class MyClient {}"), ("my server.py", b"import socket"))
    other.set_input_files(
        "#chooser", [FilePayload(name=name, mimeType="", buffer=text) for name, text in sources]
    )
    expect(other.locator(".program.server .file")).to_have_value("my_server.py")
    expect(other.locator(".program.client .file")).to_have_value("MyClient.java")


@needs_tool("strace")
def test_export_is_for_the_page_only(lab: Lab) -> None:
    import http.client

    def post(kind: str, body: str, **fields: str) -> int:
        connection = http.client.HTTPConnection(lab.host, timeout=20)
        connection.request("POST", f"/export/{kind}", body, {"Cookie": lab.cookie, **fields})
        status = connection.getresponse().status
        connection.close()
        return status

    good = json.dumps(lab_file())
    assert post("page", good) == post("svg", good) == 200
    assert post("page", good, Cookie="") == 403
    assert post("page", good, Origin="http://example.org") == 403
    assert post("page", "{}") == post("exe", good) == post("svg", json.dumps(lab_file(run=None))) == 400
