"""Certificates for the tests of a run: made once, by an issuer of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layers.keys import CertificateFiles


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    folder: Path = tmp_path_factory.mktemp("keys")
    return CertificateFiles(folder)
