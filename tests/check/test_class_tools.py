"""Tools for a class: pages for students, comparisons, Gradescope, GitHub Classroom, and a lost cluster."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bothends.check.batch import autograder
from bothends.check.batch.autograder_archive import make_archive, make_workflow
from bothends.check.batch.grading import BatchSettings, judge_all
from bothends.check.reports import FORMATS, SUFFIXES, comparison
from bothends.cli.check.options import REPORT_FORMATS
from bothends.starters.writing import make_starter
from tests.check.helpers import BOTHENDS_COMMAND
from tests.tools import needs_tool

ONLY = ("--only", "udp-two-quick")
SETTINGS = BatchSettings("server", "upper-udp", sandbox=False, only=("udp-two-quick",))


def write_class(folder: Path) -> dict[str, Path]:
    """Write three submissions: right, wrong, and one that cannot be built."""
    right = make_starter("server", "python", "udp").text
    texts = {"ada17": right, "bob23": right.replace(".upper()", ".lower()"), "cyd42": None}
    for name, text in texts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        if text is not None:
            (folder / name / "server.py").write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def run_batch(folders: dict[str, Path], out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*BOTHENDS_COMMAND, "check", "batch", *map(str, folders.values()), "--no-sandbox", *ONLY]
    command += ["--contract", "upper-udp", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_student_gets_a_page_of_their_own(tmp_path: Path) -> None:
    folders, out = write_class(tmp_path / "class"), tmp_path / "out"
    options = [word for name in FORMATS for word in ("--report", name)]
    done = run_batch(folders, out, *options)
    assert done.returncode == 1, done.stderr
    pages = {name: (out / "students" / f"{name}.html").read_text(encoding="utf-8") for name in folders}
    for name, page in pages.items():
        assert name in page
        assert not any(other in page for other in folders if other != name), name
        assert "results.html" not in page
    assert "Lost points" in pages["bob23"]
    assert "sends the right letters in the wrong case" in pages["bob23"]
    assert "two datagrams, one right after the other" in pages["ada17"]  # what a case does
    assert 'href="students/bob23.html"' in (out / "results.html").read_text(encoding="utf-8")
    written = {path.name for path in (out / "students").iterdir()}
    assert written == {f"{name}{suffix}" for name in folders for suffix in SUFFIXES.values()}
    totals = [json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["most"] for name in folders]
    assert totals == [2, 2, 2]
    graded = json.loads((out / "students" / "cyd42.gradescope.json").read_text(encoding="utf-8"))
    assert (graded["score"], graded["tests"][0]["max_score"]) == (0, 2)
    classroom = json.loads((out / "students" / "bob23.classroom.json").read_text(encoding="utf-8"))
    assert (classroom["status"], classroom["max_score"]) == ("fail", 2)
    assert [test["status"] for test in classroom["tests"]] == ["fail", "fail"]


@pytest.mark.slow
def test_two_runs_are_compared(tmp_path: Path) -> None:
    folders = write_class(tmp_path / "class")
    run_batch(folders, tmp_path / "first")
    shutil.copy(folders["ada17"] / "server.py", folders["bob23"] / "server.py")
    (folders["ada17"] / "server.py").write_text("raise SystemExit(1)", encoding="utf-8")
    del folders["cyd42"]
    done = run_batch(folders, tmp_path / "second", "--compare", str(tmp_path / "first"))
    assert "compared with the earlier batch: 3 of 3 programs differ" in done.stdout
    rows = (tmp_path / "second" / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1:] == ["ada17,2,0,,udp-one-message", "bob23,0,2,udp-one-message,", "cyd42,0,,,"]
    page = (tmp_path / "second" / "comparison.html").read_text("utf-8")
    assert "1 better, 2 worse, of 3 programs" in page
    nothing = run_batch(folders, tmp_path / "third", "--compare", str(tmp_path / "class"))
    assert nothing.returncode == 2
    assert "has no results of a batch" in nothing.stderr


def test_comparison_of_equal_runs_has_no_changes(tmp_path: Path) -> None:
    folder = write_class(tmp_path / "class")["ada17"]
    found = judge_all([folder], SETTINGS, tmp_path / "out", workers=1)
    [change] = comparison.compare({"ada17": found[0]}, found)
    assert (change.difference, change.fixed, change.broken) == (0, (), ())


def test_page_of_a_comparison_marks_better_worse_and_equal_programs() -> None:
    changes = [comparison.Change(name, 1, after) for name, after in (("ada", 2), ("bob", 0), ("cyd", 1))]
    page = comparison.as_html(changes, "upper-udp")
    assert "1 better, 1 worse, of 3 programs" in page
    rows = re.findall(r'<tr class="(\w+)"><td[^>]*>(\w+)<', page)
    assert rows == [("pass", "ada"), ("fail", "bob"), ("skip", "cyd")]


@needs_tool("strace")
def test_batch_keeps_the_pages_of_traced_failures(tmp_path: Path) -> None:
    folders = write_class(tmp_path / "class")
    done = run_batch({"bob23": folders["bob23"]}, tmp_path / "out", "--trace")
    assert done.returncode == 1, done.stderr
    [page] = (tmp_path / "out" / "traces" / "bob23").iterdir()
    assert page.name == "udp-one-message.html"
    assert page.stat().st_mode & 0o077 == 0
    assert str(page) in (tmp_path / "out" / "students" / "bob23.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--trace",), "--trace needs --no-sandbox"),
        (("--only", "tcp-burst"), "tcp-burst is a case of suite 'tcp'"),
        (("--only", "udp-quick"), "udp-quick"),
        (("--report", "pdf"), "pdf"),
        (("--compare", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: tuple[str, ...], error: str, tmp_path: Path
) -> None:
    folder = write_class(tmp_path / "class")["ada17"]
    command = [*BOTHENDS_COMMAND, "check", "batch", str(folder), "--contract", "upper-udp", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert error in done.stderr
    assert not (tmp_path / "results").exists()


def test_report_formats_of_the_command_line_are_those_of_the_reports() -> None:
    assert tuple(REPORT_FORMATS) == FORMATS == tuple(SUFFIXES)


# Gradescope ------------------------------------------------------------------------------------------


def unpack_autograder(archive: Path, root: Path) -> None:
    """Do what Gradescope does when it builds its image."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(root / "source")
        modes = {each.filename: each.external_attr >> 16 for each in packed.infolist()}
    assert modes["setup.sh"] == modes["run_autograder"] == 0o100755
    for name in ("setup.sh", "run_autograder"):
        (root / "source" / name).chmod(0o755)
    path = f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    subprocess.run(["./setup.sh"], cwd=root / "source", env={"PATH": path}, check=True, capture_output=True)
    shutil.copy(root / "source" / "run_autograder", root)
    (root / "submission").mkdir()
    (root / "results").mkdir()


def run_autograder(root: Path) -> dict[str, Any]:
    """Judge what is in `submission`, without the packages that are installed here."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root)}
    subprocess.run(["./run_autograder"], cwd=root, env=environment, check=True, capture_output=True)
    found: dict[str, Any] = json.loads((root / "results" / "results.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_autograder_judges_submissions_without_a_network(tmp_path: Path) -> None:
    command = [
        *BOTHENDS_COMMAND,
        "check",
        "gradescope",
        str(tmp_path / "hw"),
        "--contract",
        "upper-udp",
        *ONLY,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "upload it as the autograder" in done.stdout
    root = tmp_path / "autograder"
    unpack_autograder(tmp_path / "hw" / "autograder.zip", root)
    folders = write_class(tmp_path / "class")
    for name, score in (("ada17", 2), ("bob23", 0), ("cyd42", 0)):
        shutil.rmtree(root / "submission")
        shutil.copytree(folders[name], root / "submission")
        results = run_autograder(root)
        assert results["score"] == score, results
        assert sum(test["max_score"] for test in results["tests"]) == 2
        assert all({"name", "score", "max_score", "output"} <= test.keys() for test in results["tests"])


@pytest.mark.slow
@needs_tool("bwrap")
def test_autograder_runs_in_an_offline_container(tmp_path: Path) -> None:
    """A container with this system's /usr only, without a network, as Gradescope's is once it is built."""
    python = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if not python.exists():
        pytest.skip(f"{python} is not installed")
    command = [*BOTHENDS_COMMAND, "check", "gradescope", str(tmp_path), "--contract", "upper-udp", *ONLY]
    subprocess.run(command, capture_output=True, check=True)
    root = tmp_path / "autograder"
    (root / "source").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "autograder.zip") as packed:
        packed.extractall(root / "source")
    (root / "source" / "run_autograder").chmod(0o755)  # as Gradescope does
    shutil.copytree(write_class(tmp_path / "class")["ada17"], root / "submission")
    links = [["--symlink", f"usr/{name}", f"/{name}"] for name in ("bin", "lib", "lib64", "sbin")]
    files = [["--ro-bind-try", name, name] for name in ("/etc/ld.so.cache", "/etc/alternatives")]
    container = [
        "bwrap", "--unshare-all", "--die-with-parent", "--uid", "0", "--gid", "0", "--cap-add", "ALL",
        "--ro-bind", "/usr", "/usr", *itertools.chain(*links, *files), "--proc", "/proc", "--dev", "/dev",
        "--tmpfs", "/tmp", "--bind", str(root), "/autograder", "--chdir", "/autograder/source",
        "--clearenv", "--setenv", "PATH", "/usr/bin:/bin",
    ]  # fmt: skip
    script = "bash setup.sh && cp run_autograder .. && ../run_autograder"
    done = subprocess.run([*container, "bash", "-c", script], capture_output=True, text=True, check=False)
    if "creating new namespace failed" in done.stderr.lower():
        pytest.skip("the system allows no containers")
    assert done.returncode == 0, done.stderr
    results = json.loads((root / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == 2, json.dumps(results, indent=1)


def test_autograder_writes_results_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert autograder.main(tmp_path) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert "the autograder failed: FileNotFoundError" in results["output"]
    (tmp_path / "source").mkdir()
    text = json.dumps(autograder.settings_to_object(SETTINGS))
    (tmp_path / "source" / autograder.SETTINGS_FILE).write_text(text, encoding="utf-8")
    shutil.copytree(write_class(tmp_path / "class")["ada17"], tmp_path / "submission")
    monkeypatch.setattr(autograder, "_missing_sandbox", lambda: "no user namespaces")
    assert autograder.main(tmp_path) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == 2
    assert "without a sandbox, because this container allows none (no user namespaces)" in results["output"]


def test_archive_is_the_same_each_time() -> None:
    first = make_archive(SETTINGS, ["gcc"])
    assert first == make_archive(SETTINGS, ["gcc"])
    assert autograder.settings_from_object(autograder.settings_to_object(SETTINGS)).only == SETTINGS.only


# GitHub Classroom ------------------------------------------------------------------------------------


# Keys of a workflow: docs.github.com, "Workflow syntax for GitHub Actions".
WORKFLOW_KEYS = {"name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"}
JOB_KEYS = {
    *("name", "permissions", "needs", "if", "runs-on", "environment", "concurrency", "outputs", "env"),
    *("defaults", "steps", "timeout-minutes", "strategy", "continue-on-error", "container", "services"),
}
STEP_KEYS = {
    *("id", "if", "name", "uses", "run", "working-directory", "shell", "with", "env", "continue-on-error"),
    "timeout-minutes",
}
PERMISSIONS = {"actions", "checks", "contents", "issues", "pull-requests", "statuses"}


@pytest.mark.parametrize("only", [[], ["udp-one-message"]])
def test_workflow_has_the_form_that_github_documents(only: list[str]) -> None:
    yaml = pytest.importorskip("yaml")
    text = make_workflow("server", "upper-udp", only, allow_code=True)
    workflow = yaml.load(text, yaml.BaseLoader)  # otherwise `on` is True, as in YAML 1.1
    assert workflow.keys() <= WORKFLOW_KEYS
    assert workflow["on"] == ["push", "workflow_dispatch", "repository_dispatch"]
    assert workflow["permissions"].keys() <= PERMISSIONS
    assert set(workflow["permissions"].values()) <= {"read", "write", "none"}
    [job] = workflow["jobs"].values()
    assert job.keys() <= JOB_KEYS
    assert job["runs-on"] == "ubuntu-latest"
    ids = {step["id"] for step in job["steps"] if "id" in step}
    for step in job["steps"]:
        assert step.keys() <= STEP_KEYS
        assert ("uses" in step) != ("run" in step)
        assert "with" not in step or "uses" in step
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
    assert set(re.findall(r"steps\.(\w+)\.outputs", text)) == ids
    # The reporter reads the results of each runner from a variable: NAME in capitals, and _RESULTS.
    reporter = job["steps"][-1]
    assert list(reporter["env"]) == [f"{reporter['with']['runners'].upper()}_RESULTS"]


def test_workflow_judges_as_its_steps_say(tmp_path: Path) -> None:
    folder = write_class(tmp_path)["ada17"]
    contract = tmp_path / "mine.toml"
    contract.write_text('transport = "udp"\n[answer]\nfunction = "up.py:up"\n', encoding="utf-8")
    (tmp_path / "up.py").write_text("def up(message):\n    return message.upper()\n", encoding="utf-8")
    command = [
        *BOTHENDS_COMMAND,
        "check",
        "classroom",
        str(folder),
        "--contract",
        str(contract),
        "--allow-code",
    ]
    subprocess.run([*command, *ONLY], check=True, capture_output=True)
    workflow = (folder / ".github" / "workflows" / "classroom.yml").read_text(encoding="utf-8")
    assert (folder / ".github" / "bothends" / "up.py").is_file()
    assert "BOTHENDS_RESULTS" in workflow
    script = workflow.partition("run: |\n          bothends ")[2].partition("\n      - uses")[0]
    script = "bothends " + "\n".join(line.strip() for line in script.splitlines())
    script = script.replace("bothends check", " ".join((*BOTHENDS_COMMAND, "check")), 1)
    script = script.replace("check batch .", "check batch . --no-sandbox")
    output = tmp_path / "output"
    environment = {**os.environ, "RUNNER_TEMP": str(tmp_path / "runner"), "GITHUB_OUTPUT": str(output)}
    subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=True, capture_output=True)
    name, _, value = output.read_text(encoding="utf-8").strip().partition("=")
    assert name == "result"
    results = json.loads(base64.b64decode(value))
    assert (results["version"], results["status"], results["max_score"]) == (1, "pass", 2)
    assert sum(test["score"] for test in results["tests"]) == 2


# A cluster -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of dask, about its event loops and sockets
def test_cluster_without_workers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed: Any = pytest.importorskip("distributed")
    monkeypatch.setattr("bothends.check.batch.cluster.GRACE", 0.5)
    folders = write_class(tmp_path / "class")
    remarks: list[str] = []
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        address = cluster.scheduler_address
        found = judge_all(
            list(folders.values()),
            SETTINGS,
            tmp_path / "out",
            workers=2,
            cluster=address,
            remark=remarks.append,
        )
    assert [one.result.points for one in found] == [2, 0, 0]
    assert remarks[1:] == [f"{address} has no workers: the remaining 3 programs are judged on this machine"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_that_die_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed: Any = pytest.importorskip("distributed")
    monkeypatch.setattr("bothends.check.batch.cluster.GRACE", 1.0)
    right = write_class(tmp_path / "class")["ada17"]
    folders = [tmp_path / f"number-{number}" for number in range(4)]
    for folder in folders:
        shutil.copytree(right, folder)
    remarks: list[str] = []
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:

        def stop_workers(*_: object) -> None:
            cluster.scale(0)

        found = judge_all(
            folders, SETTINGS, tmp_path / "out", workers=2, cluster=cluster.scheduler_address,
            progress=stop_workers, remark=remarks.append,
        )  # fmt: skip
    assert [one.result.points for one in found] == [2, 2, 2, 2]
    assert 1 <= len(remarks) <= 2  # about TLS, and about the workers, unless they were done before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    distributed: Any = pytest.importorskip("distributed")
    right = write_class(tmp_path / "class")["ada17"]
    folders = [tmp_path / f"number-{number}" for number in range(6)]
    for folder in folders:
        shutil.copytree(right, folder)
    remarks: list[str] = []
    killed: list[int] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:

        def kill_a_worker(*_: object) -> None:
            if not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        found = judge_all(
            folders, SETTINGS, tmp_path / "out", workers=2, cluster=cluster.scheduler_address,
            progress=kill_a_worker, remark=remarks.append,
        )  # fmt: skip
    assert killed
    assert [one.result.points for one in found] == [2] * 6
    assert len(remarks) == 1  # about TLS: the other worker judged the rest
