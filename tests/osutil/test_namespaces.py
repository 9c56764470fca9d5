"""The hints for a failed creation of namespaces, from errno and /proc/sys."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bothends.osutil.namespaces import unavailable_error, unavailable_reason


@pytest.mark.parametrize(
    ("setting", "value", "number", "words"),
    [
        ("kernel/unprivileged_userns_clone", "0", errno.EPERM, "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", errno.ENOSPC, "sysctl user.max_user_namespaces=10000"),
        ("user/max_net_namespaces", "0", errno.ENOSPC, "sysctl user.max_net_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", errno.EACCES, "userns=0"),
        ("user/max_user_namespaces", "5", errno.ENOSPC, "/proc/sys/user"),
        ("user/max_user_namespaces", "5", errno.EPERM, "seccomp"),
        ("user/max_user_namespaces", "5", errno.EROFS, "systempaths=unconfined"),
        ("user/max_user_namespaces", "5", errno.EINVAL, "CONFIG_USER_NS"),
        ("user/max_user_namespaces", "5", errno.EMFILE, "ulimit -n"),
        ("user/max_user_namespaces", "5", errno.EIO, "user_namespaces(7)"),
    ],
)
def test_unavailable_reason_for_sysctl_and_errno(
    setting: str, value: str, number: int, words: str, tmp_path: Path
) -> None:
    path = tmp_path / setting
    path.parent.mkdir()
    path.write_text(f"{value}\n")
    assert words in unavailable_reason(number, tmp_path)


def test_unavailable_error_exit_status() -> None:
    error = unavailable_error(errno.EPERM)
    assert error.exit_status == 69
    assert str(error).startswith("cannot create the wire's hosts (user namespaces): EPERM ")
