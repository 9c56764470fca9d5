"""A service from one function: `@message`, `@stream` and `@datagram`.

    @message
    def shout(message: bytes) -> bytes:
        return message.upper()

| decorator | on connections | on datagram sockets |
|---|---|---|
| `@message` | each message that the framing finds: each line, without its end | each whole datagram |
| `@stream` | each chunk, as it comes | refused |
| `@datagram` | refused | each whole datagram |

1. The function takes bytes and returns what to answer, or None for no answer. If it takes a second
   parameter it is given the `Peer` too. That is found out once, when it is decorated.
2. The decorated name is a `Service` that can still be called as the plain function.
3. A message over the limit (64 KiB unless told: `@message(limit=...)`) ends that conversation, and so
   does an exception. What was answered before it is still sent, whether it came in the same chunk or
   not: how a stream is cut never changes what is said.
4. Where messages arrive whole anyway (seqpacket) the framing has nothing to do, and does nothing.

`@stream` also takes a subclass of `Conversation`, of which it makes one for each connection.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from bothends.errors import MessageTooLong, ServiceError
from bothends.framing import DEFAULT_LIMIT, Decoder, Framing, Lines
from bothends.services.base import Conversation, Peer, Push, Service

BytesFunction: TypeAlias = Callable[[bytes], bytes | None]
PeerFunction: TypeAlias = Callable[[bytes, Peer], bytes | None]

P = ParamSpec("P")
C = TypeVar("C", bound=Conversation)


class FunctionService(Service, Generic[P]):
    """A service made of a function; calling it calls the function.

    `name` is the function's, `summary` the first line of its docstring.
    """

    def __init__(self, function: Callable[P, bytes | None]) -> None:
        functools.update_wrapper(self, function)
        self.name = _name_of(function)
        self.summary = _first_line(function)
        self._function = function
        self._takes_peer = _takes_peer(function, self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> bytes | None:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<service {self.name}>"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ChunkConversation(self.name, self._bind_peer(peer))

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return _check_answer(self.name, self._bind_peer(peer)(datagram))

    def _bind_peer(self, peer: Peer) -> BytesFunction:
        """The function as one of bytes only, for this peer."""
        function: Callable[..., bytes | None] = self._function
        return (lambda data: function(data, peer)) if self._takes_peer else function


class MessageService(FunctionService[P]):
    """What `@message` makes."""

    def __init__(self, function: Callable[P, bytes | None], framing: Framing) -> None:
        super().__init__(function)
        self._framing = framing

    def open(self, peer: Peer, push: Push) -> Conversation:
        if peer.message_oriented:
            return _ChunkConversation(self.name, self._bind_peer(peer))
        framing = (
            self._framing
            if peer.max_message_size is None
            else self._framing.with_limit(peer.max_message_size)
        )
        return _MessageConversation(self.name, self._bind_peer(peer), framing)


class StreamService(FunctionService[P]):
    """What `@stream` makes of a function."""

    datagrams = False


class DatagramService(FunctionService[P]):
    """What `@datagram` makes."""

    streams = False


class ConversationService(Service, Generic[C]):
    """What `@stream` makes of a subclass of `Conversation`; calling it makes one."""

    datagrams = False

    def __init__(self, conversation_class: type[C]) -> None:
        functools.update_wrapper(self, conversation_class, updated=())
        self.name = conversation_class.__name__
        self.summary = _first_line(conversation_class)
        if inspect.isabstract(conversation_class):
            missing = ", ".join(sorted(conversation_class.__abstractmethods__))
            raise ServiceError(self.name, f"it lacks {missing}", "a conversation needs receive(self, data)")
        self._conversation_class: Callable[..., C] = conversation_class
        self._takes_peer = _takes_peer(conversation_class, self.name, given=0)

    def __call__(self, *args: Any, **kwargs: Any) -> C:
        return self._conversation_class(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<service {self.name}>"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self._conversation_class(peer) if self._takes_peer else self._conversation_class()


class _ChunkConversation(Conversation):
    """The function is called for each chunk. Its exceptions pass: nothing else is in that answer."""

    __slots__ = ("_function", "_name")

    def __init__(self, name: str, function: BytesFunction) -> None:
        self._name = name
        self._function = function

    def receive(self, data: bytes) -> bytes:
        answer = self._function(data)
        return answer if type(answer) is bytes else _check_answer(self._name, answer) or b""


class _MessageConversation(Conversation):
    """The function is called for each message of a stream."""

    __slots__ = (
        "__dict__",
        "_decoder",
        "_function",
        "_name",
        "_separator",
    )  # __dict__: `done`, at an error

    def __init__(self, name: str, function: BytesFunction, framing: Framing) -> None:
        self._name = name
        self._function = function
        self._decoder: Decoder = framing.decoder()
        # Lines are joined, not encoded one by one: that saves a copy of each.
        self._separator = b"\n" if type(framing) is Lines else b""
        if not self._separator:
            self._function = _with_encoded_answers(name, function, framing)

    def receive(self, data: bytes) -> bytes:
        try:
            messages = self._decoder.feed(data)
        except MessageTooLong as error:
            return self._on_message_too_long(error)
        return self._answer_all(messages)

    def end(self) -> bytes:
        try:
            messages = self._decoder.end()
        except MessageTooLong as error:
            return self._on_message_too_long(error)
        return self._answer_all(messages)

    def _on_message_too_long(self, error: MessageTooLong) -> bytes:
        answers = self._answer_all(error.completed_messages)
        if not self.done:
            self._fail(error)
        return answers

    def _answer_all(self, messages: Sequence[bytes]) -> bytes:
        answers: list[bytes] = []
        function = self._function
        try:
            for message in messages:
                answer = function(message)
                if type(answer) is not bytes:
                    answer = _check_answer(self._name, answer)
                    if answer is None:
                        continue
                answers.append(answer)
        except Exception as error:
            self._fail(error)
        answers.append(b"")  # so that the last line ends too
        return self._separator.join(answers)

    def _fail(self, error: Exception) -> None:
        self.done = True
        self.failure = error


def _with_encoded_answers(name: str, function: BytesFunction, framing: Framing) -> BytesFunction:
    """The function, whose answers come framed."""

    def framed(message: bytes) -> bytes | None:
        answer = _check_answer(name, function(message))
        return None if answer is None else framing.encode(answer)

    return framed


class _MessageDecorator(Protocol):
    """What `@message(...)` gives: a decorator."""

    @overload
    def __call__(self, function: BytesFunction, /) -> MessageService[[bytes]]: ...
    @overload
    def __call__(self, function: PeerFunction, /) -> MessageService[[bytes, Peer]]: ...


class _StreamDecorator(Protocol):
    """What `@stream()` gives: a decorator."""

    @overload
    def __call__(self, function: type[C], /) -> ConversationService[C]: ...
    @overload
    def __call__(self, function: BytesFunction, /) -> StreamService[[bytes]]: ...
    @overload
    def __call__(self, function: PeerFunction, /) -> StreamService[[bytes, Peer]]: ...


class _DatagramDecorator(Protocol):
    """What `@datagram()` gives: a decorator."""

    @overload
    def __call__(self, function: BytesFunction, /) -> DatagramService[[bytes]]: ...
    @overload
    def __call__(self, function: PeerFunction, /) -> DatagramService[[bytes, Peer]]: ...


@overload
def message(function: BytesFunction, /) -> MessageService[[bytes]]: ...
@overload
def message(function: PeerFunction, /) -> MessageService[[bytes, Peer]]: ...
@overload
def message(*, limit: int = ..., framing: None = None) -> _MessageDecorator: ...
@overload
def message(*, framing: Framing) -> _MessageDecorator: ...
def message(function: Any = None, /, *, limit: int | None = None, framing: Framing | None = None) -> Any:
    """Make a service of a function that answers messages: `@message` or `@message(...)`.

    `limit` is the longest line in bytes, 65,536 unless told. `framing` is another way of cutting a
    stream than by lines, with a limit of its own: `@message(framing=LengthPrefixed(4))`.

    Raises:
        ServiceError: the function is async or takes what it won't be given, or `limit` is none.
    """
    if framing is None:
        if limit is not None and limit < 1:
            raise ServiceError("message", f"limit={limit}: a line has at least one byte")
        framing = Lines(DEFAULT_LIMIT if limit is None else limit)
    elif limit is not None:
        raise ServiceError(
            "message", "both a limit and a framing", "give the framing its own: Lines(limit=...)"
        )
    if function is None:
        return functools.partial(MessageService, framing=framing)
    return MessageService(function, framing)


@overload
def stream(function: type[C], /) -> ConversationService[C]: ...
@overload
def stream(function: BytesFunction, /) -> StreamService[[bytes]]: ...
@overload
def stream(function: PeerFunction, /) -> StreamService[[bytes, Peer]]: ...
@overload
def stream() -> _StreamDecorator: ...
def stream(function: Any = None, /) -> Any:
    """Make a service of a function that answers each chunk, or of a subclass of `Conversation`.

    A chunk is whatever one read gave: the network cuts a stream where it likes. The class is made
    once for each connection, with the `Peer` if it takes one.

    Raises:
        ServiceError: the function is async or takes what it won't be given, or the class is abstract.
    """
    if function is None:
        return stream
    if isinstance(function, type) and issubclass(function, Conversation):
        return ConversationService(function)
    return StreamService(function)


@overload
def datagram(function: BytesFunction, /) -> DatagramService[[bytes]]: ...
@overload
def datagram(function: PeerFunction, /) -> DatagramService[[bytes, Peer]]: ...
@overload
def datagram() -> _DatagramDecorator: ...
def datagram(function: Any = None, /) -> Any:
    """Make a service of a function that answers whole datagrams; `b""` is an empty one.

    Raises:
        ServiceError: the function is async or takes what it won't be given.
    """
    if function is None:
        return datagram
    return DatagramService(function)


_SIGNATURE_HINTS: Final = {
    0: "it must take nothing or the peer: __init__(self) or __init__(self, peer)",
    1: "it must take the bytes, and may take the peer: (data) or (data, peer)",
}


def _takes_peer(function: Callable[..., object], name: str, given: int = 1) -> bool:
    """Whether the function wants the peer after the `given` arguments that it gets anyway.

    It does if it can't be called without, or if it has a parameter of that name in that place.
    """
    if not callable(function):
        raise ServiceError(name, f"{function!r} is no function")
    if _is_async(function):
        raise ServiceError(
            name,
            "it is async, and a service answers at once",
            "write `def`; for slow work use --engine threads",
        )
    if given and isinstance(function, type):
        raise ServiceError(name, "it is a class", "decorate a function, or a Conversation with @stream")
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C, and says nothing of what it takes
        return False
    parameters = [
        each.name
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if parameters[given : given + 1] == ["peer"]:
        return _accepts_arguments(signature, given + 1, name)
    if _accepts_arguments(signature, given):
        return False
    return _accepts_arguments(signature, given + 1, name)


def _accepts_arguments(signature: inspect.Signature, count: int, name: str = "") -> bool:
    """Whether it takes so many arguments. Where not and there is a `name` to blame: ServiceError."""
    try:
        signature.bind(*range(count))
    except TypeError:
        if not name:
            return False
        raise ServiceError(name, f"it takes {signature}", _SIGNATURE_HINTS[count - 1]) from None
    return True


def _is_async(function: Any) -> bool:
    called = (function, type(function).__call__)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in called)


def _check_answer(name: str, answer: object) -> bytes | None:
    if answer is None or isinstance(answer, bytes):
        return answer
    kind = type(answer).__name__
    cure = {"str": ".encode() it", "bytearray": "wrap it in bytes()", "memoryview": "wrap it in bytes()"}
    said = f"returned {kind}, not bytes"
    raise ServiceError(name, f"{said}: {cure[kind]}" if kind in cure else said)


def _name_of(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
