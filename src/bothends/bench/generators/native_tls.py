"""TLS of the generator in C: settings of the ssl module, given to the OpenSSL that it has loaded.

1. The generator in C calls OpenSSL itself (native/generator/tls.c), since the ssl module needs the GIL for
   each record. Its context is set up from the one that the generator in Python would use, setting by
   setting, so certificates are verified in the same way.
2. It needs the shared library that the ssl module has loaded. A Python with OpenSSL inside has none.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Any, Final

from bothends.client.tls import TlsOptions, is_address, server_name
from bothends.endpoints import Endpoint
from bothends.errors import UsageError

_NO_PARTIAL_WILDCARDS: Final = 0x4
_NEVER_CHECK_COMMON_NAME: Final = (
    0x20  # X509_CHECK_FLAG_* of OpenSSL's x509v3.h; the ssl module sets the first
)


def library_name() -> str:
    """Return the name of the library that an ssl module with a shared OpenSSL has loaded: "libssl.so.3"."""
    major = ssl.OPENSSL_VERSION_INFO[0]
    return f"libssl.so.{major}" if major >= 3 else "libssl.so.1.1"


@functools.cache
def unavailable_reason() -> str:
    """Return why the generator in C cannot use TLS; "" if it can. It must have been built."""
    try:
        native_context(TlsOptions(verify=False), Endpoint("tls", host="localhost", port=1))
    except ImportError as error:
        return f"it does not support TLS here: {error}"
    return ""


def unsupported_reason() -> str:
    """Return why the environment needs the generator in Python; "" if it does not."""
    if "SSLKEYLOGFILE" in os.environ:
        return "it does not write the file that SSLKEYLOGFILE names"
    return unavailable_reason()


def native_context(options: TlsOptions, endpoint: Endpoint) -> Any:
    """Return the settings for connections to an endpoint, for the functions of `_generator`.

    Raises SystemCallFailed and UsageError as `TlsOptions.context` does; ImportError if the ssl module does
    not use OpenSSL as a shared library.
    """
    from bothends.bench._generator import tls_context

    context, name = options.context(), server_name(options, endpoint)
    verify = context.verify_mode is not ssl.CERT_NONE
    paths = ssl.get_default_verify_paths()
    by_address = is_address(name)
    never_common_name = 0 if context.hostname_checks_common_name else _NEVER_CHECK_COMMON_NAME
    try:
        return tls_context(
            library=library_name(),
            name=None if by_address else name.encode("idna").decode("ascii"),
            address=name if by_address else None,
            verify=verify,
            check_name=context.check_hostname,
            ca_file=_path(options.ca or paths.cafile),
            ca_path=None if options.ca else paths.capath,
            certificate=_path(options.certificate),
            key=_path(options.key),
            alpn=b"".join(bytes([len(each)]) + each.encode("ascii") for each in options.alpn),
            fingerprint=bytes.fromhex(options.fingerprint),
            options=int(context.options) & 0xFFFFFFFFFFFFFFFF,
            verify_flags=int(context.verify_flags),
            host_flags=_NO_PARTIAL_WILDCARDS | never_common_name,
            min_version=int(context.minimum_version),
            ciphers=":".join(each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"),
            security_level=context.security_level,
        )
    except OSError as error:
        raise UsageError(f"TLS: {error}") from error


def _path(path: str | Path | None) -> str | None:
    return None if path is None else os.fspath(path)
