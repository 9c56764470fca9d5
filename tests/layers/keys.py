"""A test CA, its certificates, and TLS contexts that trust it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from bothends.layers import server_context


class CertificateFiles:
    """PEM files: `ca`; `server` and `client` (certificate and key in one file); `other` of another issuer."""

    def __init__(self, folder: Path) -> None:
        issuer, other_issuer = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        self.server = folder / "server.pem"
        self.client = folder / "client.pem"
        self.other = folder / "other.pem"
        issuer.cert_pem.write_to_path(self.ca)
        for path, issued in (
            (self.server, issuer.issue_cert("localhost", "127.0.0.1", "::1", "example.org")),
            (self.client, issuer.issue_cert("alice@example.org", common_name="alice")),
            (self.other, other_issuer.issue_cert("mallory@example.org", common_name="mallory")),
        ):
            issued.private_key_and_cert_chain_pem.write_to_path(path)

    def server_context(
        self, *, request_client_certificate: bool = False, alpn: tuple[str, ...] = ()
    ) -> ssl.SSLContext:
        return server_context(
            self.server, client_ca=self.ca if request_client_certificate else None, alpn=alpn
        )

    def client_context(
        self,
        *,
        certificate: Path | None = None,
        alpn: tuple[str, ...] = (),
        max_version: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if certificate is not None:
            context.load_cert_chain(certificate)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if max_version is not None:
            context.maximum_version = max_version
        return context
