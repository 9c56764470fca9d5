"""Contracts: the required behaviour of a program, as a TOML file.

    transport = "tcp"
    framing = "lines"
    persistent = true

    [answer]
    service = "upper"

msgspec validates a file against the fields of `Contract` and their types; errors name the place in the file.
The built-in contracts are files in `contracts/`.

The author of a contract may be untrusted, so the Python code that it names runs only if the caller allows it.
"""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_type_hints

from bothends import suggest
from bothends.check.oracle import (
    ExpectedReply,
    FunctionOracle,
    Oracle,
    PatternOracle,
    ServiceOracle,
    SilentOracle,
    TableOracle,
)
from bothends.errors import ConfigurationError, ServiceError, Unavailable, UnknownName
from bothends.escaping import escape_text
from bothends.framing import Framing, LengthPrefixed, Lines
from bothends.services import registry
from bothends.textfile import parse_toml, read_text

if TYPE_CHECKING:
    import msgspec
else:
    try:
        import msgspec
    except ImportError as error:
        raise Unavailable(
            "read", "contracts", hint="pip install 'bothends[check]'", reason="msgspec is not installed"
        ) from error

BUILTIN_DIR: Final = Path(__file__).parent / "contracts"
MAX_UDP_PAYLOAD: Final = 65_507  # bytes: 65,535 minus the headers of IPv4 and UDP (RFC 791, RFC 768)


class ExchangeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request and its reply: `reply` exactly, or `matches`, a regular expression for the whole reply, with
    an `example`.
    """

    request: str
    reply: str | None = None
    matches: str | None = None
    example: str = ""


class AnswerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source of correct replies: exactly one of these, and `example` with `matches`."""

    service: str = ""
    """A bothends service, or `file.py:name`, relative to the contract's folder."""

    function: str = ""
    """`file.py:name`: a Python function from a message (bytes, without its framing) to its reply."""

    exchanges: tuple[ExchangeSpec, ...] = ()
    """The supported requests, each with its reply."""

    matches: str = ""
    """A regular expression that matches every whole reply, for services such as a clock."""

    example: str = ""
    """A reply that `matches` matches, which the checker sends when it plays the server."""

    nothing: bool = False
    """There is never a reply."""

    @property
    def code_file(self) -> str:
        """The Python file whose code replies, as the contract names it; empty if there is none."""
        name = self.function or self.service
        if ":" not in name and "/" not in name and not name.endswith(".py"):
            return ""
        return name if name.endswith(".py") else name.rpartition(":")[0]


class ClientSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client's input, and what it should do with it."""

    input: Literal["stdin", "arguments"] = "stdin"
    """The source of its messages: lines on standard input, or `{message}` on its command line."""

    several: bool = False
    """It sends every line of its input, not only the first."""

    half_closes: bool = False
    """At the end of its input it shuts down its write side (shutdown(2)), and continues to read."""

    shows: bool = True
    """It prints the replies on standard output."""

    seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """The time in seconds within which it should give up if the server never replies."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The required behaviour of a program. The fields are the keys of the file."""

    name: str = ""
    """The contract's name; by default, the file's name without its suffix."""

    summary: str = ""
    """One line for a list of contracts."""

    transport: Literal["tcp", "udp", "unix", "unix+dgram"]
    """The transport."""

    framing: Literal["none", "lines", "length", "headers"] = "none"
    """How a stream is split into messages: not at all, at the ends of lines, by a length of four bytes (in
    network byte order) before each message, or at an empty line (as in HTTP; EOF then ends the reply)."""

    persistent: bool = True
    """A connection carries any number of exchanges, and the client closes it; false: one exchange, and the
    server closes it."""

    speaks_first: bool = False
    """The server sends its reply without a request (daytime)."""

    endless: bool = False
    """The reply continues until the client closes (chargen); its beginning must match the pattern."""

    prints: bool = False
    """The server prints each message on its standard output."""

    payload: Literal["bytes", "utf-8", "ascii"] = "bytes"
    """What a message may contain."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 65_536
    """The size in bytes up to which messages must be accepted; for UDP at most 65,507."""

    answer: AnswerSpec = AnswerSpec()
    """The source of correct replies."""

    client: ClientSpec = ClientSpec()
    """What a client should do."""

    relax: tuple[str, ...] = ()
    """Cases in which a failure counts as NON-STRICT."""

    leave_out: tuple[str, ...] = ()
    """Cases that are not run."""

    weights: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    """The points for each case, by name; 1 for all others."""

    files: dict[str, str] = {}
    """Files that are created in `{dir}` for the program: contents by name."""

    folder: str = "."
    """The folder that `file.py:name` is relative to: the contract's own (set when it is read)."""

    @property
    def is_datagram(self) -> bool:
        """Whether messages are datagrams."""
        return self.transport in ("udp", "unix+dgram")

    @property
    def framer(self) -> Framing | None:
        """The framing of a stream, practically without a limit, or None if there is none."""
        match self.framing:
            case "lines":
                return Lines(1 << 30)
            case "length":
                return LengthPrefixed(4, 1 << 30)
            case "headers":
                return HeaderFraming()
        return None

    def encode(self, message: bytes) -> bytes:
        """Return a message with its framing."""
        return self.framer.encode(message) if self.framer else message

    @property
    def max_message_size(self) -> int:
        """The size in bytes up to which messages must be accepted."""
        return min(self.limit, MAX_UDP_PAYLOAD) if self.transport == "udp" else self.limit

    def weight(self, case: str) -> float:
        """Return the points for a case."""
        return self.weights.get(case, 1.0)


class HeaderFraming(Lines):
    """Messages that end with an empty line, and whose lines end with CR LF (RFC 1945, section 2.2)."""

    def encode(self, message: bytes) -> bytes:
        """Return a message with CR LF at the end of each line, and an empty line after it."""
        return b"".join(line + b"\r\n" for line in message.splitlines()) + b"\r\n"


def builtin_names() -> list[str]:
    """Return the names of the built-in contracts, sorted."""
    return sorted(path.stem for path in BUILTIN_DIR.glob("*.toml"))


def is_file_name(name: str) -> bool:
    """Whether a contract's name is that of a file, with a slash or ending in .toml, not of a built-in one."""
    return name.endswith(".toml") or "/" in name


def load(name: str, *, allow_code: bool = False) -> Contract:
    """Load a built-in contract by its name, or a contract file.

    Args:
        allow_code: whether the contract may run Python code of a file.

    Raises:
        UnknownName: there is no such built-in contract.
        SystemCallFailed: the file cannot be read.
        ConfigurationError: its content is invalid.
        ServiceError: its service or function cannot be loaded.
    """
    if not is_file_name(name):
        if name not in builtin_names():
            nearest = suggest.nearest(name, builtin_names())
            hint = "`bothends check contracts` lists them; give your own as file.toml"
            raise UnknownName("contract", name, nearest, hint)
        return read(BUILTIN_DIR / f"{name}.toml")
    return read(Path(name), allow_code=allow_code)


def read(path: Path, *, allow_code: bool = False) -> Contract:
    """Read a contract file. `allow_code`: whether it may run Python code of a file.

    Raises:
        SystemCallFailed: the file cannot be read.
        ConfigurationError: its content is invalid.
        ServiceError, UnknownName: its service or function cannot be loaded.
    """
    return parse(read_text(path), str(path), path.stem, path.absolute().parent, allow_code=allow_code)


def parse(text: str, file: str, name: str, folder: Path, *, allow_code: bool = False) -> Contract:
    """Parse the text of a contract file.

    Args:
        file: the file's name, for errors.
        name: the contract's name if the text does not give one.
        folder: the folder that `file.py:name` is relative to.
        allow_code: whether the contract may run Python code of a file.

    Raises:
        ConfigurationError: the text is invalid, or names Python code that is not allowed.
        ServiceError, UnknownName: the service or function cannot be loaded.
    """
    document = parse_toml(text, file)
    try:
        contract = msgspec.convert({"name": name} | document | {"folder": str(folder)}, Contract)
    except msgspec.ValidationError as error:
        raise ConfigurationError(file, "", "", *_translate_validation_error(str(error), document)) from error
    _validate(contract, file)
    _check_code(contract.answer, file, allow_code=allow_code)
    make_oracle(contract)  # to report a missing service or function now
    return contract


def _translate_validation_error(message: str, document: dict[str, Any]) -> tuple[str, str]:
    """Translate an error of msgspec into TOML's terms. Returns: the reason with its location, and a hint."""
    reason, _, where = message.partition(" - at `$")
    location = where.rstrip("`").lstrip(".")
    reason = (reason[:1].lower() + reason[1:]).replace("object", "table").replace("field", "key")
    reason, location = escape_text(reason), escape_text(location)  # they quote keys and values of the file
    hint = ""
    if unknown := re.search(r"unknown key `(.*)`", reason):
        known = {"": Contract, "answer": AnswerSpec, "client": ClientSpec}.get(location, ExchangeSpec)
        nearest = suggest.nearest(unknown[1], known.__struct_fields__)
        hint = (
            f"did you mean {nearest!r}?" if nearest else f"known keys: {', '.join(known.__struct_fields__)}"
        )
    elif reason.startswith("invalid enum value"):
        table, _, key = location.rpartition(".")
        hint = f"use {', '.join(get_args(get_type_hints(ClientSpec if table else Contract)[key]))}"
    return (f"{location}: {reason}" if location else reason), hint


def _validate(contract: Contract, file: str) -> None:
    """Check the constraints that the types do not express."""
    answer = contract.answer
    sources = ("service", "function", "exchanges", "matches", "nothing")
    given = [each for each in sources if getattr(answer, each)]
    if len(given) != 1:
        raise ConfigurationError(
            file, "[answer]", "",
            f"exactly one of {', '.join(sources)} is required, found {' and '.join(given) or 'none'}",
            'for example, service = "upper"',
        )  # fmt: skip
    if contract.endless and not (answer.matches and contract.speaks_first and contract.persistent):
        raise ConfigurationError(
            file, "", "endless", "only an unsolicited reply with a pattern can be endless",
            "set speaks_first = true, and matches in [answer]",
        )  # fmt: skip
    if contract.is_datagram and contract.endless:
        raise ConfigurationError(file, "", "endless", "a datagram has an end; endless is for streams")
    if contract.is_datagram and contract.framing != "none":
        raise ConfigurationError(
            file, "", "framing", "datagrams are messages already; framing is for streams"
        )
    if contract.transport == "udp" and contract.limit > MAX_UDP_PAYLOAD and contract.limit != 65_536:
        raise ConfigurationError(file, "", "limit", f"a UDP datagram has at most {MAX_UDP_PAYLOAD:,} bytes")
    for name in contract.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise ConfigurationError(file, "[files]", name, "the path is outside the program's folder")
    for exchange in answer.exchanges:
        if (exchange.reply is None) == (exchange.matches is None):
            raise ConfigurationError(
                file, "[[answer.exchanges]]", "reply", f"{exchange.request!r} needs either reply or matches"
            )
    patterns: list[AnswerSpec | ExchangeSpec] = [answer, *answer.exchanges]
    for each in patterns:
        try:
            pattern = _compile(each.matches or "")
        except re.error as error:
            raise ConfigurationError(file, "[answer]", "matches", f"{each.matches!r}: {error}") from error
        if each.matches and each.example and not pattern.fullmatch(each.example.encode()):
            raise ConfigurationError(
                file, "[answer]", "example", f"{each.matches!r} doesn't match the whole of {each.example!r}"
            )


def _check_code(answer: AnswerSpec, file: str, *, allow_code: bool) -> None:
    """Check that Python code is in a file beside the contract, and allowed.

    A module is not searched for, because the current folder may be that of the program to be tested.
    """
    code = answer.code_file
    if not code:
        return
    key = "function" if answer.function else "service"
    if not code.endswith(".py"):
        raise ConfigurationError(
            file, "[answer]", key, f"{answer.function or answer.service!r} is not in a Python file",
            "write file.py:name",
        )  # fmt: skip
    if not allow_code:
        raise ConfigurationError(
            file, "[answer]", key, f"it runs the Python code in {code!r}",
            "if you trust its author, give --allow-code",
        )  # fmt: skip


def make_oracle(contract: Contract) -> Oracle:
    """Return the oracle for a contract.

    Raises:
        ServiceError, UnknownName: the service or function cannot be loaded.
    """
    answer = contract.answer
    if answer.nothing:
        return SilentOracle()
    if answer.matches:
        return PatternOracle(_compile(answer.matches), answer.example.encode())
    if answer.exchanges:
        return TableOracle(
            {each.request.encode(): _expected_reply(each, contract) for each in answer.exchanges}
        )
    if answer.function:
        name = _resolve_beside_contract(answer.function, contract.folder)
        oracle = FunctionOracle(_load_function(name), contract.framer, name)
        oracle.reply(b"message 0 of the check")  # to report a function that raises now
        return oracle
    service = registry.load(_resolve_beside_contract(answer.service, contract.folder))
    if contract.framing in ("length", "headers"):
        unframed = ServiceOracle(service, None, stream=False, half_closes=False)
        return FunctionOracle(lambda message: unframed.reply(message).exact, contract.framer)
    return ServiceOracle(
        service, contract.framer, stream=not contract.is_datagram, half_closes=not contract.persistent
    )


def _compile(pattern: str) -> re.Pattern[bytes]:
    """Compile a regular expression for a whole reply. Raises re.error."""
    with warnings.catch_warnings():
        # Python warns of "[[", which a later version may interpret in another way.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern.encode(), re.DOTALL)


def _expected_reply(exchange: ExchangeSpec, contract: Contract) -> ExpectedReply:
    if exchange.matches is not None:
        pattern = _compile(exchange.matches)
        until_eof = contract.framing == "headers"
        return ExpectedReply(pattern=pattern, example=exchange.example.encode(), until_eof=until_eof)
    reply = (exchange.reply or "").encode()
    return ExpectedReply(contract.encode(reply) if contract.framing != "headers" else reply)


def _resolve_beside_contract(name: str, folder: str) -> str:
    file, colon, rest = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return f"{Path(folder) / file}{colon}{rest}" if file.endswith(".py") else name


def _load_function(name: str) -> Any:
    """Run the file of `file.py:name`, and return its function."""
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ServiceError(name, "not a function", "write file.py:name")
    try:
        found = runpy.run_path(file).get(attribute)
    except (Exception, SystemExit) as error:
        raise ServiceError(name, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ServiceError(name, f"the file has no function {attribute!r}")
    return found
