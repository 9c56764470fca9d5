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

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import msgspec

from bothends import suggest
from bothends.check.contract_code import CodeOracle, ModuleFolder, load_function
from bothends.check.header_framing import HeaderFraming
from bothends.check.oracle import (
    ExpectedReply,
    FunctionOracle,
    Oracle,
    PatternOracle,
    ServiceOracle,
    SilentOracle,
    TableOracle,
)
from bothends.check.patterns import PatternTooSlow, check_speed, compile_pattern, match_whole
from bothends.check.reference_oracle import ReferenceOracle
from bothends.check.scenes.inbox import split_field
from bothends.check.scenes.sources import make_sources
from bothends.check.scenes.spec import Scene, SceneSpec, parse_scene
from bothends.check.scenes.steps import ExpectSame, SendTexts, Step
from bothends.check.scenes.template import TextError, TextSources, TextTemplate
from bothends.errors import ConfigurationError, MessageTooLong, UnknownName
from bothends.escaping import escape_text
from bothends.framing import FixedSize, Framing, LengthPrefixed, Lines
from bothends.services import registry
from bothends.textfile import parse_toml, read_text

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

    reference: bool = False
    """The replies are those of a reference server, which the caller gives."""

    @property
    def code_file(self) -> str:
        """The Python file whose code replies, as the contract names it; empty if there is none."""
        name = self.function or self.service
        if ":" not in name and "/" not in name and not name.endswith(".py"):
            return ""
        return name if name.endswith(".py") else name.rpartition(":")[0]


class ServerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a server is used."""

    input: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    """The lines that are typed on its standard input when it starts, with `{port}` and `{host}` replaced."""


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


class WeightSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The points for a case, and why it has them; reports show the reason."""

    points: Annotated[float, msgspec.Meta(ge=0)]
    """The points for a program that passes the case."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    """One sentence for the students."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The required behaviour of a program. The fields are the keys of the file."""

    name: str = ""
    """The contract's name; by default, the file's name without its suffix."""

    summary: str = ""
    """One line for a list of contracts."""

    transport: Literal["tcp", "udp", "unix", "unix+dgram"]
    """The transport."""

    framing: Literal["none", "lines", "length", "fixed", "headers", "self"] = "none"
    """How a stream is split into messages: not at all, at the ends of lines, by a length before each message,
    every `message_bytes`, or as in HTTP, at an empty line, with a body in scenes (the reply to a message of
    `answer` ends at EOF); or the texts of scenes delimit themselves, as those of RESP."""

    line_end: Literal["\n", "\r\n"] = "\n"
    """The end of the lines that are sent, with `lines`. Received lines may end in either way."""

    length_bytes: Annotated[int, msgspec.Meta(ge=1, le=8)] = 4
    """The width of the length before each message in bytes, with `length`."""

    length_order: Literal["big", "little"] = "big"
    """The byte order of the length, by default network byte order."""

    message_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    """The size of each message in bytes, with `fixed`; shorter texts of scenes end with `message_padding`."""

    message_padding: Literal["\0", " "] = "\0"
    """What fills shorter texts of scenes, with `fixed`: NUL bytes or spaces."""

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

    server: ServerSpec = ServerSpec()
    """How a server is used."""

    client: ClientSpec = ClientSpec()
    """What a client should do."""

    relax: tuple[str, ...] = ()
    """Cases in which a failure counts as NON-STRICT."""

    leave_out: tuple[str, ...] = ()
    """Cases that are not run."""

    weights: dict[str, Annotated[float, msgspec.Meta(ge=0)] | WeightSpec] = {}
    """The points for each case, by name, or a table of `points` and their `reason`; 1 for all others."""

    files: dict[str, str] = {}
    """Files that are created in `{dir}` for the program: contents by name."""

    scene: tuple[SceneSpec, ...] = ()
    """Dialogues, each of which is a case."""

    new_port: bool = False
    """For datagrams: the server replies from a new port, to which the client then sends (TFTP)."""

    resends: bool = False
    """For datagrams: the server may send its last datagram again, as protocols with a timeout do."""

    loss: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """The share of datagrams that the program drops by design: a client sends again, and a missing reply is
    no fault."""

    functions: str = ""
    """A Python file, relative to the contract's folder, whose functions the scenes may call."""

    folder: str = "."
    """The folder that `file.py:name` is relative to: the contract's own (set when it is read)."""

    @property
    def max_resends(self) -> int:
        """How often a datagram is sent again, if the program may drop some: almost certainly one arrives."""
        return math.ceil(math.log(_UNLIKELY, self.loss)) if self.loss else 0

    @property
    def is_datagram(self) -> bool:
        """Whether messages are datagrams."""
        return self.transport in ("udp", "unix+dgram")

    @property
    def framer(self) -> Framing | None:
        """The framing of a stream, practically without a limit, or None if there is none."""
        match self.framing:
            case "lines":
                return Lines(1 << 30) if self.line_end == "\n" else CrlfLines(1 << 30)
            case "length":
                return LengthPrefixed(self.length_bytes, 1 << 30, self.length_order)
            case "fixed":
                return FixedSize(self.message_bytes, self.message_padding.encode())
            case "headers":
                return HeaderFraming()
        return None

    def encode(self, message: bytes) -> bytes:
        """Return a message with its framing."""
        return self.framer.encode(message) if self.framer else message

    @property
    def max_message_size(self) -> int:
        """The size in bytes up to which messages must be accepted."""
        if self.framing == "length":
            return min(self.limit, self.max_length)
        return min(self.limit, MAX_UDP_PAYLOAD) if self.transport == "udp" else self.limit

    @property
    def max_length(self) -> int:
        """The greatest length in bytes that fits before a message, with `length`."""
        return (1 << (8 * self.length_bytes)) - 1

    @property
    def is_delimited(self) -> bool:
        """Whether texts without framing delimit themselves, so that the stream may be cut anywhere."""
        return self.framing == "self"

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """The parsed scenes."""
        return tuple(parse_scene(each, self.transport, self.name, self.sources) for each in self.scene)

    @property
    def sources(self) -> TextSources:
        """The files and functions that the texts of scenes may name."""
        files = {name: text.encode() for name, text in self.files.items()}
        return make_sources(files, Path(self.folder), self.functions)

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with a reference server."""
        return self.answer.reference or any(
            isinstance(step, ExpectSame) for scene in self.scenes for step in scene.steps
        )

    @property
    def code_files(self) -> tuple[str, ...]:
        """The Python files whose code it runs, as it names them."""
        return tuple(filter(None, (self.answer.code_file, self.functions)))

    @property
    def has_answer(self) -> bool:
        """Whether it has a source of correct replies; otherwise it has scenes only."""
        return self.answer != AnswerSpec()

    def weight(self, case: str) -> float:
        """Return the points for a case."""
        weight = self.weights.get(case, 1.0)
        return weight.points if isinstance(weight, WeightSpec) else weight

    def reason(self, case: str) -> str:
        """Return why a case has its points, in the words of the contract, or ""."""
        weight = self.weights.get(case)
        return weight.reason if isinstance(weight, WeightSpec) else ""


class CrlfLines(Lines):
    """Lines whose ends are CR LF."""

    def encode(self, message: bytes) -> bytes:
        """Return a line with CR LF."""
        return message + b"\r\n"


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
    if contract.functions:
        _check_code_file(contract.functions, file, "", "functions", allow_code=allow_code)
    _validate(contract, file, text)
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
        tables = {"": Contract, "answer": AnswerSpec, "server": ServerSpec, "client": ClientSpec}
        known = SceneSpec if location.startswith("scene[") else tables.get(location, ExchangeSpec)
        known = WeightSpec if location.startswith("weights") else known
        nearest = suggest.nearest(unknown[1], known.__struct_fields__)
        hint = (
            f"did you mean {nearest!r}?" if nearest else f"known keys: {', '.join(known.__struct_fields__)}"
        )
    elif reason.startswith("invalid enum value"):
        table, _, key = location.rpartition(".")
        tables = {"": Contract, "client": ClientSpec}
        owner = SceneSpec if table.startswith("scene[") else tables[table]
        values = get_args(get_type_hints(owner).get(key, Literal["tcp", "udp"]))  # else: of a client
        hint = f"use {', '.join(map(_show_value, values))}"
    return (f"{location}: {reason}" if location else reason), hint


def _show_value(value: str) -> str:
    return value if value.isprintable() else json.dumps(value)


def _validate(contract: Contract, file: str, text: str) -> None:
    """Check the constraints that the types do not express. `text` is that of the file."""
    _validate_framing(contract, file)
    _validate_scenes(contract, file, text)
    answer = contract.answer
    sources = ("service", "function", "exchanges", "matches", "nothing", "reference")
    given = [each for each in sources if getattr(answer, each)]
    if len(given) != 1 and (contract.has_answer or not contract.scene):
        raise ConfigurationError(
            file, "[answer]", "",
            f"exactly one of {', '.join(sources)} is required, found {' and '.join(given) or 'none'}",
            'for example, service = "upper"; or write scenes: [[scene]]',
        )  # fmt: skip
    if contract.endless and not (answer.matches and contract.speaks_first and contract.persistent):
        raise ConfigurationError(
            file, "", "endless", "only an unsolicited reply with a pattern can be endless",
            "set speaks_first = true, and matches in [answer]",
        )  # fmt: skip
    if contract.is_datagram and contract.endless:
        raise ConfigurationError(file, "", "endless", "a datagram has an end; endless is for streams")
    if contract.loss and not contract.is_datagram:
        raise ConfigurationError(
            file, "", "loss", "a stream loses nothing", "TCP repeats what the network loses; remove loss"
        )
    has_streams = any("tcp" in each.clients.values() for each in contract.scene)
    if contract.is_datagram and contract.framing != "none" and not has_streams:
        raise ConfigurationError(
            file, "", "framing", "datagrams are messages already; framing is for streams"
        )
    if contract.transport == "udp" and contract.limit > MAX_UDP_PAYLOAD and contract.limit != 65_536:
        raise ConfigurationError(file, "", "limit", f"a UDP datagram has at most {MAX_UDP_PAYLOAD:,} bytes")
    for key in ("new_port", "resends"):
        if getattr(contract, key) and (not contract.is_datagram or contract.has_answer):
            raise ConfigurationError(file, "", key, "it is for scenes with datagrams")
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
            pattern = compile_pattern(each.matches or "")
        except re.error as error:
            raise ConfigurationError(file, "[answer]", "matches", f"{each.matches!r}: {error}") from error
        _check_speed(pattern, file, "[answer]", each.example)
        if each.matches and each.example and not match_whole(pattern, each.example.encode()):
            raise ConfigurationError(
                file, "[answer]", "example", f"{each.matches!r} doesn't match the whole of {each.example!r}"
            )


def _check_speed(pattern: re.Pattern[bytes], file: str, table: str, example: str = "") -> None:
    try:
        check_speed(pattern, [example.encode()])
    except PatternTooSlow as error:
        raise ConfigurationError(file, table, "", *error.reason_and_hint) from error


_UNLIKELY: Final = 1e-7  # the probability that a correct program drops all that is sent again
# Key -> the framing that needs it.
_FRAMING_KEYS: Final = {
    "line_end": "lines",
    "length_bytes": "length",
    "length_order": "length",
    "message_bytes": "fixed",
    "message_padding": "fixed",
}


def _validate_framing(contract: Contract, file: str) -> None:
    default = Contract(transport="tcp")
    for key, framing in _FRAMING_KEYS.items():
        if getattr(contract, key) != getattr(default, key) and contract.framing != framing:
            raise ConfigurationError(
                file, "", key, f"it needs framing = {framing!r}", f"framing is {contract.framing!r}"
            )
    if contract.framing == "fixed" and not contract.message_bytes:
        raise ConfigurationError(
            file, "", "framing", "fixed needs the size of a message", "for example, message_bytes = 16"
        )
    if contract.framing in ("fixed", "self") and contract.has_answer:
        raise ConfigurationError(file, "", "framing", f"{contract.framing} is for scenes", "remove [answer]")
    if contract.framing == "length" and contract.length_bytes == 1 and contract.has_answer:
        raise ConfigurationError(
            file, "", "length_bytes", "the cases of [answer] have messages of 1,000 bytes", "remove [answer]"
        )


def _validate_scenes(contract: Contract, file: str, source: str) -> None:
    ids: dict[str, str] = {}
    sources = contract.sources
    for spec in contract.scene:
        first_line = source[: source.index(spec.talk)].count("\n") + 1 if spec.talk in source else 0
        scene = parse_scene(spec, contract.transport, file, sources, first_line)
        table = f"scene {spec.name!r}"
        other = ids.setdefault(scene.case_id, spec.name)
        if other is not spec.name:
            raise ConfigurationError(
                file,
                table,
                "name",
                f"its case is {scene.case_id}, as that of {other!r}",
                "choose another name",
            )
        for step in scene.texts():
            texts = step.texts if isinstance(step, SendTexts) else step.choices
            for text in texts:
                where = f"{file}:{first_line + step.line - 1}" if first_line else file
                for capture in text.captures:
                    _check_speed(compile_pattern(capture.pattern), where, f"{table}, line {step.line}")
                _validate_text(contract, scene, step, text, where)


def _validate_text(contract: Contract, scene: Scene, step: Step, text: TextTemplate, file: str) -> None:
    """Check that a text is possible with the framing."""
    literal = b"".join(part for part in text.parts if isinstance(part, bytes))
    reason = hint = ""
    if text.checker is not None:
        if contract.framing in ("none", "self") and not scene.is_datagram(step.client):
            reason, hint = "a function cannot judge a text without framing", "write what is received"
    elif scene.is_datagram(step.client):
        if len(literal) > MAX_UDP_PAYLOAD:
            reason = f"a UDP datagram has at most {MAX_UDP_PAYLOAD:,} bytes"
    elif contract.framing == "lines" and b"\n" in literal:
        reason, hint = "a line cannot contain \\n", 'its end is sent by itself; or use framing = "none"'
    elif contract.framing == "headers":
        reason, hint = _validate_head(text)
    elif contract.framing in ("none", "self") and isinstance(step, SendTexts) and text.parts == (b"",):
        reason, hint = "without framing, nothing would be sent", "write a text after the sign"
    elif contract.framer is not None:
        try:
            contract.encode(literal)
        except MessageTooLong as error:
            reason, hint = f"{error.size:,} bytes do not fit", f"a message has at most {error.limit:,}"
    if reason:
        raise ConfigurationError(file, f"scene {scene.spec.name!r}", "", f"line {step.line}: {reason}", hint)


def _validate_head(text: TextTemplate) -> tuple[str, str]:
    """Return why a text is not a message with a head, and what to write instead, or empty strings."""
    lines, _ = text.split_head()
    if not lines or not lines[0].parts:
        return "a message begins with a line", r"for example, GET / HTTP/1.1\nHost: localhost"
    try:
        for line in lines[1:]:
            split_field(line)
    except TextError as error:
        return error.reason, error.hint
    return "", ""


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
    _check_code_file(code, file, "[answer]", key, allow_code=allow_code)


def _check_code_file(code: str, file: str, table: str, key: str, *, allow_code: bool) -> None:
    if not code.endswith(".py"):
        raise ConfigurationError(file, table, key, f"{code!r} is not a Python file", "write file.py")
    if not allow_code:
        raise ConfigurationError(
            file, table, key, f"it runs the Python code in {code!r}",
            "if you trust its author, give --allow-code",
        )  # fmt: skip


def make_oracle(contract: Contract) -> Oracle:
    """Return the oracle for a contract.

    Raises:
        ServiceError, UnknownName: the service or function cannot be loaded.
    """
    answer = contract.answer
    if answer.nothing or not contract.has_answer:
        return SilentOracle()
    if answer.reference:
        return ReferenceOracle(contract.framer, is_datagram=contract.is_datagram)
    if answer.matches:
        return PatternOracle(compile_pattern(answer.matches), answer.example.encode())
    if answer.exchanges:
        return TableOracle(
            {each.request.encode(): _expected_reply(each, contract) for each in answer.exchanges}
        )
    if not answer.code_file:
        return _service_oracle(contract, answer.service)
    modules = ModuleFolder(Path(contract.folder, answer.code_file).parent)
    name = _resolve_beside_contract(answer.function or answer.service, contract.folder)
    with modules.searched():
        if answer.service:
            return CodeOracle(_service_oracle(contract, name), modules)
        oracle = CodeOracle(FunctionOracle(load_function(name), contract.framer, name), modules)
    oracle.reply(b"Message 0 of the CHECK")  # to report a function that raises now
    return oracle


def _service_oracle(contract: Contract, name: str) -> Oracle:
    service = registry.load(name)
    if contract.framing in ("length", "headers"):
        unframed = ServiceOracle(service, None, stream=False, half_closes=False)
        return FunctionOracle(lambda message: unframed.reply(message).exact, contract.framer)
    return ServiceOracle(
        service, contract.framer, stream=not contract.is_datagram, half_closes=not contract.persistent
    )


def _expected_reply(exchange: ExchangeSpec, contract: Contract) -> ExpectedReply:
    if exchange.matches is not None:
        pattern = compile_pattern(exchange.matches)
        until_eof = contract.framing == "headers"
        return ExpectedReply(pattern=pattern, example=exchange.example.encode(), until_eof=until_eof)
    reply = (exchange.reply or "").encode()
    return ExpectedReply(contract.encode(reply) if contract.framing != "headers" else reply)


def _resolve_beside_contract(name: str, folder: str) -> str:
    file, colon, rest = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return f"{Path(folder) / file}{colon}{rest}" if file.endswith(".py") else name
