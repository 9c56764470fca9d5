"""Certificates for the tests, created once per run by a test CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layers.keys import CertificateFiles


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    folder: Path = tmp_path_factory.mktemp("keys")
    return CertificateFiles(folder)
