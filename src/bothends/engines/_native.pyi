"""Type stubs of the C core (native/*.c)."""

from collections.abc import Callable, Mapping

from bothends.endpoints import Address
from bothends.engines.asyncio import ConversationProtocol
from bothends.engines.connection_state import Action, Input, State
from bothends.services.base import Conversation, Peer, Push

COUNTERS: tuple[str, ...]
CLOSE_REASONS: tuple[str, ...]

def bind(
    address: type[Address],
    peer: type[Peer],
    conversation: type,
    transitions: Mapping[tuple[State, Input], tuple[State, Action]],
    /,
) -> None: ...
def probe() -> int: ...

class Connection:
    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int, low: int = ...) -> None: ...

class Core:
    open_conversation: Callable[[Peer, Push], Conversation]
    answer_datagram: Callable[[bytes, Peer], bytes | None]
    @property
    def connections(self) -> int: ...
    @property
    def conversations(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def iterations(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def rearmed_receives(self) -> int: ...
    def __init__(
        self,
        *,
        io_uring: bool,
        write_high_water: int,
        read_size: int,
        idle_timeout: float,
        max_lifetime: float,
        linger_timeout: float,
        drain_idle: float,
        accept_retry_delay: float,
        busy_poll: float,
        max_connections: int,
        max_message_size: int | None,
        admit: Callable[[Peer], bool] | None,
        open_conversation: Callable[[Peer, Push], Conversation],
        push: Push,
        answer_datagram: Callable[[bytes, Peer], bytes | None],
        on_connection_opened: Callable[[Peer], object] | None,
        on_connection_closed: Callable[[Peer, int, int, int], object],
        on_pull_conversation: Callable[[int, Peer, Conversation], object],
        on_service_error: Callable[[Peer, BaseException], object] | None,
        on_accept_paused: Callable[[int], object] | None,
        on_datagram_dropped: Callable[[Peer, int, int], object] | None,
        submissions: int = 256,
        completions: int = 2048,
        buffers: int = 256,
        buffer_size: int = 16384,
    ) -> None: ...
    def run(self, timeout: float | None, /) -> None: ...
    def stop(self) -> None: ...
    def attach_protocol(self, fd: int, protocol: ConversationProtocol, /) -> Connection: ...
    def start_conversation(self, fd: int, conversation: Conversation | None, peer: Peer, /) -> None: ...
    def drain(self, last_check: float, /) -> None: ...
    def abort(self) -> None: ...
    def listen(self, fd: int, local: Address | None, shared: bool, /) -> None: ...
    def stop_listening(self) -> None: ...
    def count(self, words: memoryview, offsets: tuple[int, ...], /) -> None: ...
    def log_traffic(
        self,
        *,
        write: Callable[[int, bytes], object],
        format_address: Callable[[Address, int], bytes],
        on_fragment: Callable[[Peer, bytes], object] | None,
        end_fragment: Callable[[int], object] | None,
        templates: tuple[bytes, ...],
        limit: int,
        max_fragment: int,
        message_stream: int,
        activity_stream: int,
        is_json: bool,
        line_by_line: bool,
    ) -> None: ...
    def flush_log(self) -> None: ...
    def watch(self, fd: int, callback: Callable[[int], object], events: int, shared: bool, /) -> None: ...
    def unwatch(self, fd: int, /) -> None: ...
    def add_datagram_socket(
        self,
        fd: int,
        local: Address,
        reject: Callable[[Peer], object] | None,
        max_size: int,
        wildcard: bool,
        is_inet: bool,
        /,
    ) -> None: ...
    def remove_datagram_socket(self, fd: int, /) -> None: ...
    def close(self) -> None: ...
