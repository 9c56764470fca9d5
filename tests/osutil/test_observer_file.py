"""What an observer's file says about itself at a limit of its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, resource, sys
from bothends.osutil.observer_file import ObserverFile

def note(count, reason):
    return f"{count} lines are missing: {reason}\\n"

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
file = ObserverFile(descriptor, "log", missing_line=note)
assert file.write("a" * 300 + "\\n")
# Room for the line that reports five missing ones and a short one; none for another report.
size = 301 + len(note(5, "EFBIG (File too large)")) + len("c\\n") + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
for _ in range(5):
    assert not file.write("b" * 300 + "\\n")
assert file.write("c\\n")
for _ in range(3):
    assert not file.write("d" * 20 + "\\n")
print(file.close().hint)
"""


def test_reported_lines_stay_reported_when_room_is_made_for_the_last_report(tmp_path: Path) -> None:
    """The last lines make room for the last report. One of them may report others, which are missing, too."""
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, check=True)
    assert done.stdout == "9 records are missing\n"
    assert path.read_text(encoding="utf-8") == "a" * 300 + "\n9 lines are missing: EFBIG (File too large)\n"
