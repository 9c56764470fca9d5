"""The mistakes of the programs: the scene that shows each, and what the failure says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ContractMutant:
    """A program with a mistake.

    `happened`: a part of the failure of the case `scene`; " | " separates what may happen, by chance.
    """

    contract: str
    mistake: str
    scene: str
    happened: str

    def __str__(self) -> str:
        return f"{self.contract}-{self.mistake}"


PROGRAMS: Final = {
    "key-value-resp": "key_value_resp",
    "chat": "chat_lines",
    "http-keep-alive": "http_keep_alive",
    "http-body": "http_body",
    "smtp": "smtp",
    "irc": "irc",
    "udp-pinger": "udp_pinger",
    "dns": "dns",
    "websocket-echo": "websocket",
    "tftp": "tftp",
    "file-transfer": "file_transfer",
    "arq-stop-and-wait": "arq",
    "arq-sliding-window": "arq",
}
# What follows the port and the mistake on the command line of a program.
ARGUMENTS: Final = {
    "tftp": "{dir}",
    "file-transfer": "{dir}",
    "arq-stop-and-wait": "2",
    "arq-sliding-window": "8",
}
CONTRACT_MUTANTS: Final = tuple(
    ContractMutant(*words)
    for words in (
        ("key-value-resp", "never-stores", "set-and-get", r'ann received "$-1\r\n" (5 bytes)'),
        ("key-value-resp", "first-key-only", "set-and-get", r'ann received "$4\r\npear\r\n"'),
        ("key-value-resp", "empty-for-missing", "set-and-get", r'ann received "$0\r\n\r\n"'),
        ("key-value-resp", "own-store", "for-all-clients", r'ben received "$-1\r\n"'),
        ("key-value-resp", "splits-values", "any-bytes", "ann received"),
        ("key-value-resp", "closes-on-unknown", "an-unknown-command", "the server closed the connection"),
        ("key-value-resp", "one-recv", "ping-cut", "ann received"),
        ("key-value-resp", "short-values", "a-large-value", "the server closed the connection"),
        ("key-value-resp", "forgets-count", "counting", 'ann received ":1'),
        ("key-value-resp", "first-only", "ping", "ann received nothing within"),
        ("key-value-resp", "one-client", "for-all-clients", "ben received nothing within"),
        ("chat", "to-all", "to-all-others", 'ann received "guest1: hello'),
        ("chat", "to-first", "to-all-others", "cem received nothing within"),
        ("chat", "own-names", "to-all-others", 'cem received "guest3: hello"'),
        ("chat", "drops-on-leave", "one-leaves", "cem received nothing within"),
        ("chat", "one-recv", "to-all-others-cut", "ben received"),
        (
            "http-keep-alive",
            "closes",
            "several-requests",
            "the server closed the connection; ann received nothing",
        ),
        ("http-keep-alive", "wrong-length", "several-requests", "its body is"),
        ("http-keep-alive", "short-length", "several-requests", "its body is"),
        ("http-keep-alive", "body-after-head", "head", 'ann received "<!doctype html>'),
        ("http-keep-alive", "lf-only", "several-requests", "a line of its head ends with LF, not with CR LF"),
        ("http-keep-alive", "ignores-close", "close", "the connection was still open after"),
        ("http-keep-alive", "error-without-length", "not-found", "it has no Content-Length and no chunks"),
        (
            "http-keep-alive",
            "bad-chunks",
            "several-requests",
            "a line of its chunks ends with LF, not with CR LF",
        ),
        ("http-keep-alive", "drops-rest", "several-requests", "ann received nothing within"),
        ("http-body", "text-only", "a-length", "its body is"),
        ("http-body", "length-only", "chunks", "its body is"),
        ("http-body", "keeps-sizes", "chunks", "its body is"),
        ("http-body", "decimal-sizes", "large-chunks", "ann received"),
        ("http-body", "one-recv-chunk", "chunks-bytewise", "its body is"),
        ("http-body", "leaves-end", "after-each-other", "ann received"),
        ("http-body", "waits-for-body", "no-body", "ann received nothing within"),
        ("http-body", "closes", "after-each-other", "ann received"),
        ("http-body", "dies-of-length", "no-chunks", "the server exited"),
        (
            "http-keep-alive",
            "ignores-eof",
            "the-client-ends-first",
            "the connection was still open after",
        ),
        ("smtp", "no-greeting", "a-message", "ann received nothing within"),
        ("smtp", "no-354", "a-message", "ann received nothing within"),
        ("smtp", "any-order", "wrong-commands", 'ann received "250 OK'),
        ("smtp", "ends-at-any-dot", "a-message", 'ann received "500 unknown command'),
        ("smtp", "stays-open", "a-message", "the connection was still open after"),
        ("smtp", "upper-case-only", "two-messages", 'ann received "500 unknown command'),
        ("smtp", "keeps-sender", "two-messages", 'ann received "503 nested MAIL'),
        ("smtp", "lf-only", "a-message", r'ann received only "220 check.example ready\n"'),
        ("smtp", "one-recv", "a-message-bytewise", "ann received"),
        ("irc", "nick-first", "registration", "ben received"),
        ("irc", "no-pong", "registration", "ann received nothing within"),
        ("irc", "echoes", "a-channel", 'ann received ":ann!ann@127.0.0.1 PRIVMSG #class :hello, all'),
        ("irc", "to-everybody", "a-channel", "cem received"),
        ("irc", "no-prefix", "a-channel", "ann received only"),
        ("irc", "no-401", "to-one-person", "ann received nothing within"),
        ("irc", "no-433", "registration", "cem received"),
        ("irc", "keeps-members", "a-channel", 'ben received ":ann!ann@127.0.0.1 PRIVMSG #class :anybody?'),
        ("udp-pinger", "swaps-case", "ten-pings", 'ann received "pING 1 tIME A1"'),
        ("udp-pinger", "first-client", "two-clients", "ben received nothing in reply to 17 sends"),
        ("udp-pinger", "stale-buffer", "of-several-lengths", "ann received"),
        ("udp-pinger", "loses-all", "ten-pings", "ann received nothing in reply to 17 sends"),
        ("udp-pinger", "cuts", "of-several-lengths", "only the first 128 of 300 bytes"),
        ("dns", "no-id", "an-address", r'ann received "\x00\x00\x81\x80'),
        ("dns", "no-qr", "an-address", r'ann received "\x124\x01\x80'),
        ("dns", "little-endian", "an-address", "ann received"),
        ("dns", "no-question", "an-address", "ann received"),
        ("dns", "case", "in-capitals", "ann received"),
        ("dns", "no-nxdomain", "no-such-name", "ann received"),
        ("dns", "no-tcp", "over-tcp", "it has no tcp socket"),
        ("dns", "no-length", "over-tcp", "ann received"),
        ("dns", "dies-of-garbage", "garbage", "the server exited"),
        ("websocket-echo", "wrong-accept", "a-message", "ann received only"),
        ("websocket-echo", "any-request", "no-websocket", "ann received"),
        ("websocket-echo", "masks", "a-message", r'ann received "\x81\x85'),
        ("websocket-echo", "short-lengths", "lengths", "ann received"),
        ("websocket-echo", "swaps-length", "lengths", r'ann received "\x82~~'),
        ("websocket-echo", "no-pong", "ping-and-fragments", "ann received nothing within"),
        ("websocket-echo", "echoes-fragments", "ping-and-fragments", r'ann received "\x81\x03Hel'),
        (
            "websocket-echo",
            "no-close-frame",
            "close",
            "the server closed the connection; ann received nothing",
        ),
        ("websocket-echo", "stays-open", "close", "the connection was still open after"),
        ("websocket-echo", "any-text", "text-is-utf-8", r'ann received "\x81\x02'),
        ("websocket-echo", "takes-unmasked", "frames-without-a-mask", r'ann received "\x81\x00'),
        ("tftp", "one-block", "several-blocks", "ann received nothing within"),
        ("tftp", "little-endian", "read-a-file", r'ann received "\x03\x00\x01\x00hello'),
        ("tftp", "no-empty-block", "several-blocks", "ben received nothing within"),
        ("tftp", "no-error", "no-such-file", "ann received nothing within"),
        ("tftp", "no-timeout", "an-acknowledgment-is-lost", "ann received nothing within"),
        ("tftp", "one-transfer", "two-at-once", "ben received nothing within"),
        ("tftp", "does-not-wait", "several-blocks", r'ann received "\x00\x03\x00\x02'),
        ("file-transfer", "reads-once", "put", "ann received"),
        ("file-transfer", "wrong-size", "get", r'ann received "OK 13\nhello'),
        ("file-transfer", "closes-on-error", "no-such-file", "the server closed the connection"),
        ("file-transfer", "whole-disk", "only-its-own-folder", 'ann received "OK '),
        ("file-transfer", "keeps-parts", "an-upload-that-ends-early", r'ben received "OK 11\nonly a part"'),
        ("file-transfer", "one-file", "get", "ann received nothing | the peer closed early"),
        (
            "arq-stop-and-wait",
            "keeps-twice",
            "the-acknowledgment-is-lost",
            'ann received "TEXT one one two two"',
        ),
        ("arq-stop-and-wait", "no-second-ack", "the-acknowledgment-is-lost", "ann received nothing within"),
        ("arq-stop-and-wait", "no-checksum", "damaged-on-the-way", 'ann received "TEXT one twi three"'),
        ("arq-stop-and-wait", "no-number", "an-old-packet", 'ann received "TEXT two one two three"'),
        ("arq-stop-and-wait", "next-number", "in-order", 'ann received "ACK 1"'),
        ("arq-stop-and-wait", "no-second-ack", "in-order-loss", "ann received nothing within"),
        ("arq-stop-and-wait", "no-second-ack", "sent-again", "ann received nothing within"),
        ("arq-stop-and-wait", "keeps-twice", "in-order-duplicates", 'ann received "TEXT one one two two'),
        ("arq-sliding-window", "no-number", "in-order-reordering", 'ann received "TEXT three two one'),
        ("arq-sliding-window", "no-modulo", "in-order", 'ann received "ACK'),
        ("arq-sliding-window", "acks-any", "one-is-lost", 'ann received "ACK 2"'),
        ("arq-sliding-window", "keeps-twice", "sent-again", 'ann received "TEXT one two one two"'),
        ("arq-sliding-window", "no-checksum", "damaged-on-the-way", 'ann received "TEXT one twi"'),
    )
)
