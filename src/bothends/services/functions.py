"""Make a service from one function: `@message`, `@stream` and `@datagram`.

    @message
    def shout(message: bytes) -> bytes:
        return message.upper()

| decorator | on connections | on datagram sockets |
|---|---|---|
| `@message` | each message that the framing finds: by default each line, without its end | each whole
datagram | | `@stream` | each chunk, as it arrives | rejected | | `@datagram` | rejected | each whole datagram
|

1. The function takes bytes and returns the answer, or None for no answer. If it has a second parameter, it
   gets the `Peer` too. The signature is inspected once, by the decorator.
2. The decorated name is a `Service` that can still be called like the plain function.
3. A message over the limit (64 KiB by default: `@message(limit=...)`) ends that conversation, and so does an
   exception. Answers to earlier messages are still sent, even if they arrived in the same chunk: the output
   never depends on how a stream is cut into chunks.
4. With seqpacket sockets, messages arrive whole, so the framing is not used.

`@stream` also takes a subclass of `Conversation`, which it instantiates for each connection.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from bothends.errors import MessageTooLong, ServiceError
from bothends.framing import DEFAULT_LIMIT, Decoder, Framing, Lines
from bothends.services.base import Conversation, Peer, Push, Service

__all__ = [
    "BytesFunction",
    "ConversationService",
    "DatagramService",
    "FunctionService",
    "MessageService",
    "PeerFunction",
    "StreamService",
    "datagram",
    "message",
    "stream",
]

BytesFunction: TypeAlias = Callable[[bytes], bytes | None]
PeerFunction: TypeAlias = Callable[[bytes, Peer], bytes | None]

P = ParamSpec("P")
C = TypeVar("C", bound=Conversation)


class FunctionService(Service, Generic[P]):
    """A service made from a function. Calling it calls the function.

    `name` is the function's name, `summary` the first line of its docstring.
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
        """Return the function with its `peer` argument bound, if it takes one."""
        function: Callable[..., bytes | None] = self._function
        return (lambda data: function(data, peer)) if self._takes_peer else function


class MessageService(FunctionService[P]):
    """The service that `@message` returns."""

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
    """The service that `@stream` returns for a function."""

    datagrams = False


class DatagramService(FunctionService[P]):
    """The service that `@datagram` returns."""

    streams = False


class ConversationService(Service, Generic[C]):
    """The service that `@stream` returns for a subclass of `Conversation`. Calling it calls the class."""

    datagrams = False

    def __init__(self, conversation_class: type[C]) -> None:
        functools.update_wrapper(self, conversation_class, updated=())
        self.name = conversation_class.__name__
        self.summary = _first_line(conversation_class)
        if inspect.isabstract(conversation_class):
            missing = ", ".join(sorted(conversation_class.__abstractmethods__))
            raise ServiceError(self.name, f"it lacks {missing}", "define receive(self, data)")
        self._conversation_class: Callable[..., C] = conversation_class
        self._takes_peer = _takes_peer(conversation_class, self.name, given=0)

    def __call__(self, *args: Any, **kwargs: Any) -> C:
        return self._conversation_class(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<service {self.name}>"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self._conversation_class(peer) if self._takes_peer else self._conversation_class()


class _ChunkConversation(Conversation):
    """Calls the function for each chunk. Exceptions propagate, because no other answer could get lost."""

    __slots__ = ("_function", "_name")

    def __init__(self, name: str, function: BytesFunction) -> None:
        self._name = name
        self._function = function

    def receive(self, data: bytes) -> bytes:
        answer = self._function(data)
        return answer if type(answer) is bytes else _check_answer(self._name, answer) or b""


class _MessageConversation(Conversation):
    """Calls the function for each message of a stream."""

    # __dict__ holds `done` and `failure` after an error.
    __slots__ = ("__dict__", "_decoder", "_framing", "_function", "_name", "_separator")

    def __init__(self, name: str, function: BytesFunction, framing: Framing) -> None:
        self._name = name
        self._function = function
        self._framing = framing
        self._decoder: Decoder = framing.decoder()
        # Lines are joined instead of encoded one by one, which saves a copy of each.
        self._separator = b"\n" if type(framing) is Lines else b""
        if not self._separator:
            self._function = _with_encoded_answers(name, function, framing)

    @property
    def line_function(self) -> BytesFunction | None:
        return self._function if type(self._framing) is Lines else None

    @property
    def line_limit(self) -> int:
        """The limit of the framing, in bytes."""
        return self._framing.limit if isinstance(self._framing, Lines) else 0

    def check_answer(self, answer: object) -> bytes | None:
        """Return an answer that may be sent, or raise ServiceError."""
        return _check_answer(self._name, answer)

    def fail(self, error: Exception) -> None:
        """End the conversation because of an error."""
        self.done = True
        self.failure = error

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
            self.fail(error)
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
            self.fail(error)
        answers.append(b"")  # so that the last line ends with LF too
        return self._separator.join(answers)


def _with_encoded_answers(name: str, function: BytesFunction, framing: Framing) -> BytesFunction:
    """Return the function with framed answers."""

    def framed(message: bytes) -> bytes | None:
        answer = _check_answer(name, function(message))
        return None if answer is None else framing.encode(answer)

    return framed


class _MessageDecorator(Protocol):
    """The decorator that `@message(...)` returns."""

    @overload
    def __call__(self, function: BytesFunction, /) -> MessageService[[bytes]]: ...
    @overload
    def __call__(self, function: PeerFunction, /) -> MessageService[[bytes, Peer]]: ...


class _StreamDecorator(Protocol):
    """The decorator that `@stream()` returns."""

    @overload
    def __call__(self, function: type[C], /) -> ConversationService[C]: ...
    @overload
    def __call__(self, function: BytesFunction, /) -> StreamService[[bytes]]: ...
    @overload
    def __call__(self, function: PeerFunction, /) -> StreamService[[bytes, Peer]]: ...


class _DatagramDecorator(Protocol):
    """The decorator that `@datagram()` returns."""

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
    """Make a service from a function that answers messages: `@message` or `@message(...)`.

    Args:
        function: called with each message, and with the `Peer` if it takes a second parameter.
        limit: maximum line length in bytes; 65,536 by default.
        framing: how to split a stream, instead of by lines; it has its own limit:
            `@message(framing=LengthPrefixed(4))`.

    Raises:
        ServiceError: the function is async or has other required parameters, or `limit` is invalid.
    """
    if framing is None:
        if limit is not None and limit < 1:
            raise ServiceError("message", f"limit={limit} must be at least 1")
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
    """Make a service from a function that answers each chunk, or from a subclass of `Conversation`.

    A chunk is the data of one read; the network may cut a stream anywhere. The class is instantiated for each
    connection, with the `Peer` if it takes one.

    Raises:
        ServiceError: the function is async or has other required parameters, or the class is abstract.
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
    """Make a service from a function that answers whole datagrams. `b""` sends an empty datagram.

    Raises:
        ServiceError: the function is async or has other required parameters.
    """
    if function is None:
        return datagram
    return DatagramService(function)


_SIGNATURE_HINTS: Final = {
    0: "it must take nothing or the peer: __init__(self) or __init__(self, peer)",
    1: "it must take the bytes, and may take the peer: (data) or (data, peer)",
}


def _takes_peer(function: Callable[..., object], name: str, given: int = 1) -> bool:
    """Return whether the function takes the peer after the `given` arguments that it gets anyway.

    It does if it cannot be called without it, or if the parameter at that position is named `peer`.
    """
    if not callable(function):
        raise ServiceError(name, f"{function!r} is not a function")
    if _is_async(function):
        raise ServiceError(
            name,
            "it is async, but a service must return its answer at once",
            "use `def`; for slow work use --engine threads",
        )
    if given and isinstance(function, type):
        raise ServiceError(name, "it is a class", "decorate a function, or a Conversation with @stream")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C without a signature
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
    """Return whether the function takes `count` arguments. If not and `name` is given, raise ServiceError."""
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
    hints = {"str": ".encode() it", "bytearray": "wrap it in bytes()", "memoryview": "wrap it in bytes()"}
    reason = f"returned {kind}, not bytes"
    raise ServiceError(name, f"{reason}: {hints[kind]}" if kind in hints else reason)


def _name_of(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
