"""Contracts: what a program should do, as a file in TOML.

    transport = "tcp"
    framing = "lines"
    persistent = true

    [answer]
    service = "upper"

The fields of `Contract` and their types are what is checked (msgspec); a mistake is said with its place in
the file. Built-in contracts are files too: they lie in `contracts/`.
"""

from __future__ import annotations

import re
import runpy
import tomllib
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
from bothends.framing import Framing, LengthPrefixed, Lines
from bothends.services import registry
from bothends.textfile import read_text

if TYPE_CHECKING:
    import msgspec
else:
    try:
        import msgspec
    except ImportError as error:
        raise Unavailable(
            "read", "contracts", hint="pip install 'bothends[check]'", reason="msgspec isn't installed"
        ) from error

BUILTIN_DIR: Final = Path(__file__).parent / "contracts"
MAX_UDP_PAYLOAD: Final = 65_507  # 65,535 less the headers of IPv4 and UDP (RFC 791, RFC 768)


class ExchangeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request and its reply: `reply` to the byte, or `matches`, a regular expression for all of it, of
    which `example` is one.
    """

    request: str
    reply: str | None = None
    matches: str | None = None
    example: str = ""


class AnswerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the right reply is found: exactly one of these."""

    service: str = ""
    """A service of ours, or `file.py:name`, looked for beside the contract."""

    function: str = ""
    """`file.py:name`: a Python function from a message (bytes, without its framing) to its reply."""

    exchanges: tuple[ExchangeSpec, ...] = ()
    """The requests that can be made, each with its reply."""

    matches: str = ""
    """A regular expression that every reply fits as a whole: for clocks."""

    example: str = ""
    """A reply that fits `matches`: what we say when we play the server."""

    nothing: bool = False
    """There is never a reply."""


class ClientSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client is told, and what it should then do."""

    input: Literal["stdin", "arguments"] = "stdin"
    """Where it takes its messages from: lines on standard input, or `{message}` on its command line."""

    several: bool = False
    """It sends every line of its input, not the first only."""

    half_closes: bool = False
    """After its input it says so to the server (shutdown), and reads on."""

    shows: bool = True
    """It prints the reply on standard output."""

    seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """A client of a silent server should give up in so many seconds."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a program should do. A file holds these keys."""

    name: str = ""
    """What it is called; by default after its file."""

    summary: str = ""
    """One line for a list."""

    transport: Literal["tcp", "udp", "unix", "unix+dgram"]
    """What carries it."""

    framing: Literal["none", "lines", "length", "headers"] = "none"
    """What makes a message of a stream: nothing, the end of a line, four bytes of length (network byte order)
    before it, or an empty line after it (as in HTTP; the reply then ends with the connection)."""

    persistent: bool = True
    """A connection carries any number of exchanges and is closed by the client; false: one exchange, then the
    server closes."""

    speaks_first: bool = False
    """The reply comes without a message (daytime)."""

    endless: bool = False
    """The reply goes on until the client closes (chargen): what has come of it once is what must match."""

    prints: bool = False
    """The server shows each message on its standard output."""

    payload: Literal["bytes", "utf-8", "ascii"] = "bytes"
    """What may stand in a message."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 65_536
    """The longest message that must be taken, in bytes; for UDP 65,507 is the most there is."""

    answer: AnswerSpec = AnswerSpec()
    """Which reply is right."""

    client: ClientSpec = ClientSpec()
    """What is asked of a client."""

    relax: tuple[str, ...] = ()
    """Cases whose failure is NON-STRICT only."""

    leave_out: tuple[str, ...] = ()
    """Cases that are not asked."""

    weights: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    """Marks for a case; 1 for what isn't named."""

    files: dict[str, str] = {}
    """Files that are put into `{dir}` for the program, by name."""

    folder: str = "."
    """Where `file.py:name` is looked for: the contract's own folder (set when it is read)."""

    @property
    def is_datagram(self) -> bool:
        """Messages are datagrams."""
        return self.transport in ("udp", "unix+dgram")

    @property
    def framer(self) -> Framing | None:
        """The framing of a stream, without a limit of its own; None where there is none."""
        match self.framing:
            case "lines":
                return Lines(1 << 30)
            case "length":
                return LengthPrefixed(4, 1 << 30)
            case "headers":
                return HeaderFraming()
        return None

    def encode(self, message: bytes) -> bytes:
        """A message as it goes over the wire."""
        return self.framer.encode(message) if self.framer else message

    @property
    def max_message_size(self) -> int:
        """The longest message that must be taken, in bytes."""
        return min(self.limit, MAX_UDP_PAYLOAD) if self.transport == "udp" else self.limit

    def weight(self, case: str) -> float:
        """The marks for a case."""
        return self.weights.get(case, 1.0)


class HeaderFraming(Lines):
    """Messages end with an empty line, and their lines with CR LF (RFC 1945, section 2.2)."""

    def encode(self, message: bytes) -> bytes:
        """See Framing.encode."""
        return b"".join(line + b"\r\n" for line in message.splitlines()) + b"\r\n"


def builtin_names() -> list[str]:
    """The built-in contracts."""
    return sorted(path.stem for path in BUILTIN_DIR.glob("*.toml"))


def load(name: str) -> Contract:
    """A built-in contract by its name, or one from a file.

    Raises:
        UnknownName, SystemRefused, ConfigurationError, Unavailable.
    """
    if not name.endswith(".toml") and "/" not in name:
        if name not in builtin_names():
            nearest = suggest.nearest(name, builtin_names())
            hint = "`bothends check contracts` lists them; one of your own is given as file.toml"
            raise UnknownName("contract", name, nearest, hint)
        return read(BUILTIN_DIR / f"{name}.toml")
    return read(Path(name))


def read(path: Path) -> Contract:
    """A contract from its file.

    Raises:
        SystemRefused: the file can't be read.
        ConfigurationError: something in it can't be understood.
    """
    return parse(read_text(path), str(path), path.stem, path.absolute().parent)


def parse(text: str, file: str, name: str, folder: Path) -> Contract:
    """As `read`, of the text.

    Raises:
        ConfigurationError: something in it can't be understood.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(file, "", "", f"it is no TOML: {error}") from error
    try:
        contract = msgspec.convert({"name": name} | document | {"folder": str(folder)}, Contract)
    except msgspec.ValidationError as error:
        raise ConfigurationError(file, "", "", *_translate_validation_error(str(error), document)) from error
    _validate(contract, file)
    make_oracle(contract)  # a service or function that isn't there is known now
    return contract


def _translate_validation_error(message: str, document: dict[str, Any]) -> tuple[str, str]:
    """msgspec's words in ours: what is wrong and where, and the nearest known key."""
    reason, _, where = message.partition(" - at `$")
    place = where.rstrip("`").lstrip(".")
    reason = (reason[:1].lower() + reason[1:]).replace("object", "table").replace("field", "key")
    hint = ""
    if unknown := re.search(r"unknown key `(.*)`", reason):
        known = {"": Contract, "answer": AnswerSpec, "client": ClientSpec}.get(place, ExchangeSpec)
        nearest = suggest.nearest(unknown[1], known.__struct_fields__)
        hint = (
            f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(known.__struct_fields__)}"
        )
    elif reason.startswith("invalid enum value"):
        section, _, key = place.rpartition(".")
        hint = f"there are {', '.join(get_args(get_type_hints(ClientSpec if section else Contract)[key]))}"
    return (f"{place}: {reason}" if place else reason), hint


def _validate(contract: Contract, file: str) -> None:
    """What types alone don't say."""
    answer = contract.answer
    ways = [
        each for each in ("service", "function", "exchanges", "matches", "nothing") if getattr(answer, each)
    ]
    if len(ways) != 1:
        said = " and ".join(ways) if ways else "none"
        raise ConfigurationError(
            file, "[answer]", "", f"it needs exactly one way to find the reply, and has {said}",
            'service = "upper", for example',
        )  # fmt: skip
    if contract.endless and not (answer.matches and contract.speaks_first and contract.persistent):
        raise ConfigurationError(
            file, "", "endless", "only a reply without a message, known by a pattern, can go on",
            "speaks_first = true, and matches in [answer]",
        )  # fmt: skip
    if contract.is_datagram and contract.endless:
        raise ConfigurationError(file, "", "endless", "a datagram has an end: this is for streams")
    if contract.is_datagram and contract.framing != "none":
        raise ConfigurationError(
            file, "", "framing", "datagrams are messages already: framing is for streams"
        )
    if contract.transport == "udp" and contract.limit > MAX_UDP_PAYLOAD and contract.limit != 65_536:
        raise ConfigurationError(file, "", "limit", f"a UDP datagram has {MAX_UDP_PAYLOAD:,} bytes at most")
    for name in contract.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise ConfigurationError(file, "[files]", name, "it would lie outside the program's folder")
    for exchange in answer.exchanges:
        if (exchange.reply is None) == (exchange.matches is None):
            raise ConfigurationError(
                file, "[[answer.exchanges]]", "reply", f"{exchange.request!r} needs either reply or matches"
            )
    patterns: list[AnswerSpec | ExchangeSpec] = [answer, *answer.exchanges]
    for each in patterns:
        try:
            pattern = re.compile((each.matches or "").encode(), re.DOTALL)
        except re.error as error:
            raise ConfigurationError(file, "[answer]", "matches", f"{each.matches!r}: {error}") from error
        if each.matches and each.example and not pattern.fullmatch(each.example.encode()):
            raise ConfigurationError(
                file, "[answer]", "example", f"{each.example!r} doesn't fit {each.matches!r} as a whole"
            )


def make_oracle(contract: Contract) -> Oracle:
    """What knows the right replies.

    Raises:
        ServiceError, UnknownName: the service or the function can't be loaded.
    """
    answer = contract.answer
    if answer.nothing:
        return SilentOracle()
    if answer.matches:
        return PatternOracle(re.compile(answer.matches.encode(), re.DOTALL), answer.example.encode())
    if answer.exchanges:
        return TableOracle(
            {each.request.encode(): _expected_reply(each, contract) for each in answer.exchanges}
        )
    if answer.function:
        name = _resolve_beside_contract(answer.function, contract.folder)
        found = FunctionOracle(_load_function(name), contract.framer, name)
        found.reply(b"message 0 of the check")  # one that gives no reply at all is known now
        return found
    service = registry.load(_resolve_beside_contract(answer.service, contract.folder))
    if contract.framing in ("length", "headers"):
        nobody = ServiceOracle(service, None, stream=False, half_closes=False)
        return FunctionOracle(lambda message: nobody.reply(message).exact, contract.framer)
    return ServiceOracle(
        service, contract.framer, stream=not contract.is_datagram, half_closes=not contract.persistent
    )


def _expected_reply(exchange: ExchangeSpec, contract: Contract) -> ExpectedReply:
    if exchange.matches is not None:
        pattern = re.compile(exchange.matches.encode(), re.DOTALL)
        to_end = contract.framing == "headers"
        return ExpectedReply(pattern=pattern, example=exchange.example.encode(), until_eof=to_end)
    reply = (exchange.reply or "").encode()
    return ExpectedReply(contract.encode(reply) if contract.framing != "headers" else reply)


def _resolve_beside_contract(name: str, folder: str) -> str:
    place, colon, rest = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return f"{Path(folder) / place}{colon}{rest}" if place.endswith(".py") else name


def _load_function(name: str) -> Any:
    """`file.py:name`: the file is run, and the name looked up in it."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place.endswith(".py"):
        raise ServiceError(name, "it is no function's name", "write file.py:name")
    try:
        found = runpy.run_path(place).get(attribute)
    except (Exception, SystemExit) as error:
        raise ServiceError(name, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ServiceError(name, f"the file holds no function {attribute!r}")
    return found
