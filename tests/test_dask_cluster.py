"""Clusters with and without TLS: one warning without; refused in one line where no scheduler answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bothends import dask_cluster
from bothends.errors import Unavailable

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
trustme = pytest.importorskip("trustme")


@contextmanager
def scheduler(protocol: str) -> Iterator[str]:
    """Run a scheduler without workers in this process. Yields its address."""
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol=protocol, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def certificates(tmp_path: Path) -> Iterator[None]:
    """Configure dask with certificates of a new authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "own"
    )
    own: dict[str, Any] = {"cert": str(tmp_path / "own"), "key": str(tmp_path / "own")}
    tls = {"ca-file": str(tmp_path / "ca"), "scheduler": own, "worker": own, "client": own}
    with dask.config.set({f"distributed.comm.tls.{key}": value for key, value in tls.items()}):
        yield


def test_cluster_without_tls_is_one_warning() -> None:
    warnings: list[str] = []
    with scheduler("tcp://") as address, dask_cluster.connect(address, warnings.append):
        (warning,) = warnings
    assert f"{address} has no TLS" in warning
    assert "\n" not in warning


@pytest.mark.usefixtures("certificates")
def test_cluster_with_tls_is_no_warning() -> None:
    warnings: list[str] = []
    with scheduler("tls://") as address, dask_cluster.connect(address, warnings.append) as client:
        assert address.startswith("tls://")
        assert client.scheduler_info()["workers"] == {}
    assert warnings == []


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("tcp://127.0.0.1:1", "dask scheduler"),
        ("tls://127.0.0.1:1", "distributed.comm.tls"),
        ("nonsense://a", "dask scheduler"),
        ("", "dask scheduler"),
    ],
)
def test_no_scheduler_is_one_line(address: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_TIMEOUT", 0.5)
    with pytest.raises(Unavailable) as caught:
        dask_cluster.connect(address, lambda _: None)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
