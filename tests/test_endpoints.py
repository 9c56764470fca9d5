"""Endpoints: accepted URLs and arguments, the errors for invalid ones, and round trips through str()."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import OPTIONS, SCHEMES, WRAPPERS, Address, Endpoint, endpoints_from_args
from bothends.errors import EndpointError, UnknownName

URL_PREFIXES = st.sampled_from(
    ["tcp://", "udp://", "unix://", "fd://", "systemd://", "stdio:", "vsock://", "://"]
)


def option_strategies(scheme: str) -> dict[str, st.SearchStrategy[Any]]:
    values: dict[str, st.SearchStrategy[Any]] = {}
    for name, rule in OPTIONS.items():
        if scheme not in rule.schemes or rule.wrapper or name in ("family", "v6only"):
            continue
        if rule.kind == "flag":
            values[name] = st.booleans()
        elif rule.kind == "word":
            values[name] = st.text(
                "abcXYZ019._-:@%?&=#+", min_size=rule.minimum, max_size=min(rule.maximum, 15)
            )
        else:
            values[name] = st.integers(rule.minimum, rule.maximum)
    return values


def wrapper_option_strategies(scheme: str) -> dict[str, st.SearchStrategy[Any]]:
    networks = st.one_of(
        st.ip_addresses().map(str), st.sampled_from(["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"])
    )
    values = {"trust": st.lists(networks, min_size=1, max_size=3).map(",".join), "header": st.integers(1, 2)}
    return {name: value for name, value in values.items() if scheme in OPTIONS[name].schemes}


def hosts() -> st.SearchStrategy[str]:
    label = st.text("abcdefghijklmnopqrstuvwxyzABCZ0123456789_", min_size=1, max_size=12)
    names = st.lists(label, min_size=1, max_size=3).map(lambda labels: "h" + ".".join(labels))
    v6 = st.ip_addresses(v=6).map(str)
    zone = st.text("abcdefgh0123456789.-_~:@]?#", min_size=1, max_size=15)
    zoned = st.builds(lambda address, name: f"{address}%{name}", v6, zone)
    return st.one_of(st.just(""), names, v6, zoned, st.ip_addresses(v=4).map(str), st.just("münchen.example"))


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    scheme = draw(st.sampled_from(list(SCHEMES)))
    rule = SCHEMES[scheme]
    fields: dict[str, Any] = {}
    match rule.fields:
        case "host and port" if scheme == "vsock":
            cids = st.integers(0, 2**32 - 1)
            fields["host"] = draw(st.one_of(st.just(""), cids.map(str)))
            fields["port"] = draw(cids)
        case "host and port":
            fields["host"] = draw(hosts())
            fields["port"] = draw(st.integers(0, 65535))
        case "path":
            raw = st.binary(min_size=1, max_size=60).filter(lambda path: b"\0" not in path)
            abstract = st.binary(max_size=60).map(lambda name: b"@" + name)
            text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
            decoded = st.one_of(raw, abstract).map(lambda path: path.decode("utf-8", "surrogateescape"))
            fields["path"] = draw(st.one_of(decoded, text))
        case "descriptor":
            fields["fd"] = draw(st.integers(0, 2**31 - 1))
        case "name":
            printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters=":")
            fields["name"] = draw(st.text(printable, min_size=1, max_size=255))
    if rule.wrappable and draw(st.booleans()):
        fields["wrappers"] = WRAPPERS
    applicable = option_strategies(scheme) | (
        wrapper_option_strategies(scheme) if "wrappers" in fields else {}
    )
    options = draw(st.fixed_dictionaries({}, optional=applicable))
    return Endpoint(scheme, options=tuple(options.items()), **fields)


@given(endpoints())
def test_str_and_parse_round_trip(endpoint: Endpoint) -> None:
    url = str(endpoint)
    assert url.isascii() or not endpoint.host.isascii()
    assert Endpoint.parse(url) == endpoint
    assert str(Endpoint.parse(url)) == url


@given(endpoints(), endpoints())
def test_str_is_injective(one: Endpoint, other: Endpoint) -> None:
    assert (one == other) == (str(one) == str(other))


URL_CHARACTERS = st.text("[]:%/?#@&=+.-_0123456789abcfimorstux* \udcff", max_size=30)


@given(st.one_of(st.text(), st.builds(str.__add__, URL_PREFIXES, st.text(max_size=40) | URL_CHARACTERS)))
def test_parse_arbitrary_text_succeeds_or_raises_documented_error(text: str) -> None:
    with contextlib.suppress(EndpointError, UnknownName):
        endpoint = Endpoint.parse(text)
        assert Endpoint.parse(str(endpoint)) == endpoint


ARGUMENTS = st.text(":[]/.%@-0123456789abtcpuixn", max_size=12)


@given(st.lists(ARGUMENTS, max_size=4), st.sampled_from(list(SCHEMES)))
def test_endpoints_from_arbitrary_args_succeed_or_raise_documented_error(
    args: list[str], scheme: str
) -> None:
    with contextlib.suppress(EndpointError, UnknownName):
        assert len(endpoints_from_args(args, scheme)) <= len(args)


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("tcp://127.0.0.1:12000", "127.0.0.1", 12000, "tcp://127.0.0.1:12000"),
        ("tcp://:12000", "", 12000, "tcp://:12000"),
        ("TCP://localhost:0/", "localhost", 0, "tcp://localhost:0"),
        ("tcp://[::1]:80", "::1", 80, "tcp://[::1]:80"),
        ("tcp://[0:0::0:1]:80", "::1", 80, "tcp://[::1]:80"),
        ("tcp://[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80, "tcp://[::ffff:127.0.0.1]:80"),
        ("tcp://[fe80::1%25eth0]:80", "fe80::1%eth0", 80, "tcp://[fe80::1%25eth0]:80"),
        ("tcp://[fe80::1%eth0]:80", "fe80::1%eth0", 80, "tcp://[fe80::1%25eth0]:80"),
        ("tcp://[fe80::1%25]:80", "fe80::1%25", 80, "tcp://[fe80::1%2525]:80"),
        ("vsock://2:4294967295", "2", 4294967295, "vsock://2:4294967295"),
        ("vsock://:1234", "", 1234, "vsock://:1234"),
        ("udp://0.0.0.0:00053", "0.0.0.0", 53, "udp://0.0.0.0:53"),
    ],
)
def test_parse_host_and_port(text: str, host: str, port: int, url: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.host, endpoint.port, str(endpoint)) == (host, port, url)


@pytest.mark.parametrize(
    ("text", "path", "url"),
    [
        ("unix:///run/a.sock", "/run/a.sock", "unix:///run/a.sock"),
        ("unix://run/a.sock", "run/a.sock", "unix://run/a.sock"),
        ("unix:a.sock", "a.sock", "unix://a.sock"),
        ("unix:/run/a.sock", "/run/a.sock", "unix:///run/a.sock"),
        ("unix:////run", "//run", "unix:////run"),
        ("unix://@name", "@name", "unix://@name"),
        ("unix://%40name", "@name", "unix://@name"),
        ("unix://./@name", "./@name", "unix://./@name"),
        ("unix://@", "@", "unix://@"),
        ("unix+dgram:///a%20b%3Fc%23d%25e", "/a b?c#d%e", "unix+dgram:///a%20b%3Fc%23d%25e"),
        ("unix:///é", "/é", "unix:///%C3%A9"),
        ("unix:///%FF", "/\udcff", "unix:///%FF"),
        ("unix:///\udcff", "/\udcff", "unix:///%FF"),
        ("unix://@a%00b", "@a\0b", "unix://@a%00b"),
    ],
)
def test_parse_unix_path(text: str, path: str, url: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.path, str(endpoint)) == (path, url)
    assert endpoint.is_unix
    assert endpoint.is_abstract == path.startswith("@")


def test_parse_other_schemes() -> None:
    assert Endpoint.parse("fd://3") == Endpoint("fd", fd=3)
    assert Endpoint.parse("systemd://http%20a") == Endpoint("systemd", name="http a")
    assert Endpoint.parse("stdio:") == Endpoint.parse("stdio://") == Endpoint("stdio")
    assert str(Endpoint("stdio")) == "stdio:"
    assert Endpoint.parse("proxyprotocol+tcp://:1").wrappers == ("proxyprotocol",)
    url = "proxyprotocol+tls://:1?trust=10.0.0.0/8,::1"
    assert str(Endpoint.parse(url)) == url
    assert Endpoint.parse("proxyprotocol+tls://:1?trust=10.0.0.0%2F8%2C0::1/128") == Endpoint.parse(url)


def test_options_are_typed_and_in_canonical_order() -> None:
    endpoint = Endpoint.parse("tcp://:1?ttl=64&nodelay=0&backlog=128&reuseport&interface=eth%30")
    assert str(endpoint) == "tcp://:1?reuseport=1&backlog=128&nodelay=0&ttl=64&interface=eth0"
    assert endpoint.flag("nodelay", True) is False
    assert endpoint.flag("reuseport") is True
    assert endpoint.flag("keepalive") is False
    assert endpoint.number("backlog") == 128
    assert endpoint.number("tos") is None
    assert endpoint.word("interface") == "eth0"
    assert endpoint.word("congestion") is None
    assert endpoint.label == "tcp://:1"
    assert endpoint == Endpoint("tcp", port=1, options=endpoint.options)
    assert len({endpoint, Endpoint.parse(str(endpoint))}) == 1


def test_mode_option_is_octal() -> None:
    endpoint = Endpoint.parse("unix:///a?mode=0660")
    assert endpoint.number("mode") == 0o660
    assert str(endpoint) == "unix:///a?mode=660"


def test_with_methods_return_changed_copies() -> None:
    endpoint = Endpoint.parse("tcp://localhost:0?nodelay=0")
    assert str(endpoint.with_port(80)) == "tcp://localhost:80?nodelay=0"
    assert str(endpoint.with_host("::1")) == "tcp://[::1]:0?nodelay=0"
    assert str(endpoint.with_options(nodelay=None, backlog=1)) == "tcp://localhost:0?backlog=1"
    with pytest.raises(EndpointError, match="unix has no port"):
        Endpoint.parse("unix:///a").with_port(80)


@pytest.mark.parametrize(
    ("scheme", "stream", "datagram", "message_oriented"),
    [
        ("tcp", True, False, False),
        ("udp", False, True, True),
        ("unix+seqpacket", False, False, True),
        ("fd", False, False, False),
        ("stdio", True, False, False),
    ],
)
def test_scheme_socket_type_properties(
    scheme: str, stream: bool, datagram: bool, message_oriented: bool
) -> None:
    texts = {"fd": "fd://3", "stdio": "stdio:", "unix+seqpacket": "unix+seqpacket://@a"}
    endpoint = Endpoint.parse(texts.get(scheme, f"{scheme}://:1"))
    assert (endpoint.is_stream, endpoint.is_datagram, endpoint.is_message_oriented) == (
        stream,
        datagram,
        message_oriented,
    )
    assert endpoint.kind == SCHEMES[scheme].kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no scheme; an endpoint is a URL: tcp://:12000"),
        ("localhost:80", "no scheme; an endpoint is a URL: tcp://localhost:80"),
        (":80", "no scheme; an endpoint is a URL: tcp://:80"),
        ("/run/a.sock", "no scheme"),
        ("tcp:localhost:80", "'//' is missing; write tcp://localhost:80"),
        ("tcp://localhost", "no port; write tcp://localhost:12000"),
        ("tcp://[::1]", "no port; write tcp://[::1]:12000"),
        ("tcp://localhost:", "no port"),
        ("tcp://localhost:http", "a port is a number, not 'http'; service names are not looked up"),
        ("tcp://localhost:-1", "a port is a number, not '-1'"),
        ("tcp://localhost:٣", "a port is a number"),
        ("tcp://localhost:65536", "a port is between 0 and 65535, not 65536"),
        ("tcp://localhost:" + "9" * 5000, "a port is a number"),
        ("tcp://::1:80", "an IPv6 address needs brackets"),
        ("tcp://[::1:80", "'[' without ']'"),
        ("tcp://[::1]80", "only :PORT may follow ']'"),
        ("tcp://[127.0.0.1]:80", "'127.0.0.1' is not an IPv6 address; only IPv6 addresses go in brackets"),
        ("tcp://[fe80::1%]:80", "'' is not an interface name"),
        ("tcp://*:80", "'*' is not a host; leave the host empty"),
        ("tcp://1.2.3.400:80", "'1.2.3.400' is not an IPv4 address"),
        ("tcp://127.1:80", "'127.1' is not an IPv4 address"),
        ("tcp://127.0.0.01:80", "no leading zeros"),
        ("tcp://a..b:80", "'a..b' is not a host name"),
        ("tcp://-a:80", "'-a' is not a host name"),
        ("tcp://a b:80", "'a b' is not a host name"),
        ("tcp://" + "a" * 64 + ":80", "each label between dots has 1 to 63 characters"),
        ("tcp://user@host:80", "an endpoint has no user name; write tcp://host:80"),
        (
            "tcp://host:80/index.html",
            "only ?options may follow the port of a tcp endpoint; write tcp://host:80",
        ),
        ("tcp://host:80#top", "an endpoint has no fragment"),
        ("tcp://host:80\n", "a control character"),
        ("unix://", "no path"),
        ("unix:///a%00b", "a path cannot hold a NUL byte"),
        ("unix:///100%", "'%' must be followed by two hexadecimal digits; write a literal % as %25"),
        ("unix:///\ud800", "a lone surrogate"),
        ("fd://", "a descriptor is a number, not ''"),
        ("fd://x", "a descriptor is a number, not 'x'"),
        ("fd://2147483648", "a descriptor is a number between 0 and 2147483647"),
        ("systemd://", "'' is not a systemd descriptor name"),
        ("systemd://a:b", "printable ASCII characters, no colon"),
        ("stdio:x", "nothing may follow the scheme"),
        ("vsock://localhost:1", "the host of vsock is a context id, not 'localhost'"),
        ("vsock://4294967296:1", "the host of vsock is a context id"),
        ("proxyprotocol://:1", "proxyprotocol wraps another scheme; for example proxyprotocol+tcp://"),
        ("proxyprotocol+udp://:1", "proxyprotocol needs a stream, unlike udp; it works with tcp"),
        ("proxyprotocol+proxyprotocol+tcp://:1", "proxyprotocol is given twice"),
        ("tcp://:1?trust=::1", "option trust needs proxyprotocol; it applies to proxyprotocol+tcp"),
        ("proxyprotocol+unix:a?trust=::1", "option trust does not apply to unix"),
        ("proxyprotocol+tcp://:1?trust=", "option trust is a list of networks, not ''"),
        ("proxyprotocol+tcp://:1?trust=10.0.0.0/8,all", "and 'all' is not a network"),
        (
            "proxyprotocol+tcp://:1?trust=10.1.0.0/8",
            "10.1.0.0/8 has host bits set; the network is 10.0.0.0/8",
        ),
        ("proxyprotocol+tcp://:1?header=3", "option header is between 1 and 2, not 3"),
        ("tcp://:1?mode=660", "option mode does not apply to tcp; it applies to unix, unix+dgram"),
        ("stdio:?nodelay=1", "stdio takes no options"),
        ("tcp://:1?nodelay=yes", "option nodelay is 0 or 1, not 'yes'"),
        ("tcp://:1?nodelay=1&nodelay=1", "option nodelay is given twice"),
        ("tcp://:1?backlog", "option backlog is a number, not ''"),
        ("tcp://:1?backlog=0", "option backlog is between 1 and 65535, not 0"),
        ("tcp://:1?family=5", "option family is 4 or 6"),
        ("tcp://127.0.0.1:1?family=6", "family=6 is given, but 127.0.0.1 is an IPv4 address"),
        ("tcp://[::1]:1?family=4", "family=4 is given, but ::1 is an IPv6 address"),
        ("tcp://:1?family=4&v6only=1", "option v6only is for IPv6"),
        ("tcp://:1?interface=", "option interface has 1 to 15 characters, not 0"),
        ("tcp://:1?interface=a%20b", "option interface is a word"),
        ("unix:///a?mode=888", "option mode is an octal number, not '888'"),
        ("unix:///a?mode=7777", "option mode is between 0 and 777, not 7777"),
    ],
)
def test_parse_invalid_url_error_text(text: str, message: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint.parse(text)
    assert message in str(caught.value)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "kind", "nearest"),
    [
        ("tpc://:1", "endpoint scheme", "tcp"),
        ("unix+datagram://a", "endpoint scheme", "unix+dgram"),
        ("proxyprotcol+tcp://:1", "endpoint scheme", "proxyprotocol+tcp"),
        ("proxyprotocol+tpc://:1", "endpoint scheme", "proxyprotocol+tcp"),
        ("tcp://:1?no_delay=1", "endpoint option", "nodelay"),
        ("tcp://:1?reuse_port=1", "endpoint option", "reuseport"),
        ("tcp://:1?zzzzzz", "endpoint option", ""),
        ("tcp://:1?", None, None),
        ("tcp://:1?&", "endpoint option", ""),
    ],
)
def test_parse_unknown_name_suggests_nearest(text: str, kind: str | None, nearest: str) -> None:
    if kind is None:
        assert Endpoint.parse(text) == Endpoint("tcp", port=1)
        return
    with pytest.raises(UnknownName) as caught:
        Endpoint.parse(text)
    assert (caught.value.kind, caught.value.nearest) == (kind, nearest)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "tcp"}, "no port"),
        ({"scheme": "tcp", "port": 1, "path": "/a"}, "tcp has no path"),
        ({"scheme": "fd"}, "a descriptor is a number"),
        ({"scheme": "tcp", "port": 1, "options": {"backlog": True}}, "option backlog is a number, not True"),
        ({"scheme": "tcp", "port": 1, "options": {"nodelay": 2}}, "option nodelay is 0 or 1, not 2"),
        ({"scheme": "tcp", "port": 1, "wrappers": ("tls",)}, "there is no endpoint wrapper 'tls'"),
        ({"scheme": "tpc", "port": 1}, "did you mean 'tcp'?"),
    ],
)
def test_constructor_validates_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((EndpointError, UnknownName)) as caught:
        Endpoint(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("args", "scheme", "urls"),
    [
        (["tcp://:1", "udp://:2"], "tcp", ["tcp://:1", "udp://:2"]),
        (["localhost", "80"], "tcp", ["tcp://localhost:80"]),
        ([":80"], "udp", ["udp://:80"]),
        (["localhost:80"], "tcp", ["tcp://localhost:80"]),
        (["[::1]:80", ":1"], "tcp", ["tcp://[::1]:80", "tcp://:1"]),
        (["::1", "80"], "tcp", ["tcp://[::1]:80"]),
        (["[::1]", "80"], "tcp", ["tcp://[::1]:80"]),
        (["fe80::1%eth0", "80"], "tcp", ["tcp://[fe80::1%25eth0]:80"]),
        (["2", "1234"], "vsock", ["vsock://2:1234"]),
        (["/run/a b", "@c"], "unix", ["unix:///run/a%20b", "unix://@c"]),
        (["stdio:", "unix:a"], "tcp", ["stdio:", "unix://a"]),
        (["/run/a b", "./c", "../d"], "tcp", ["unix:///run/a%20b", "unix://./c", "unix://../d"]),
        (["/run/a", "[::1]:80"], "udp", ["unix+dgram:///run/a", "udp://[::1]:80"]),
        ([], "tcp", []),
    ],
)
def test_endpoints_from_args(args: list[str], scheme: str, urls: list[str]) -> None:
    assert [str(endpoint) for endpoint in endpoints_from_args(args, scheme)] == urls


@pytest.mark.parametrize(
    ("args", "scheme", "text", "message"),
    [
        (["80"], "tcp", "80", "a port without a host; write :80 for every interface"),
        (["localhost"], "tcp", "localhost", "no port; give a port: localhost 12000"),
        (["a/b"], "tcp", "a/b", "no port"),
        (["::1"], "tcp", "::1", "a host without a port; give a port: ::1 12000"),
        (["localhost", "http"], "tcp", "localhost", "no port"),
        (["localhost:http"], "tcp", "localhost:http", "a port is a number"),
        (["localhost", "99999"], "tcp", "localhost 99999", "a port is between 0 and 65535"),
        (["1", "2"], "tcp", "1 2", "'1' is not an IPv4 address"),
        (["3"], "fd", "3", "fd has no short form; give a URL"),
    ],
)
def test_endpoints_from_invalid_args_raise(args: list[str], scheme: str, text: str, message: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoints_from_args(args, scheme)
    assert caught.value.text == text
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("family", "sockaddr", "shown", "endpoint"),
    [
        (socket.AF_INET, ("127.0.0.1", 5000), "127.0.0.1#5000", "tcp://127.0.0.1:5000"),
        (socket.AF_INET6, ("::1", 5000, 0, 0), "::1#5000", "tcp://[::1]:5000"),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 5000, 0, 0), "127.0.0.1#5000", "tcp://127.0.0.1:5000"),
        (socket.AF_INET6, ("fe80::1%eth0", 5000, 0, 2), "fe80::1%eth0#5000", "tcp://[fe80::1%25eth0]:5000"),
        (socket.AF_INET6, ("fe80::1", 5000, 0, 2), "fe80::1%2#5000", "tcp://[fe80::1%252]:5000"),
        (40, (2, 5000), "2#5000", "vsock://2:5000"),
        (socket.AF_UNIX, "/run/a", "/run/a", "unix:///run/a"),
        (socket.AF_UNIX, b"\0name", "@name", "unix://@name"),
        (socket.AF_UNIX, b"\0\xff\n", "@\\udcff\\n", "unix://@%FF%0A"),
        (socket.AF_UNIX, "", "unix", None),
        (socket.AF_UNIX, b"", "unix", None),
        (socket.AF_UNIX, None, "unix", None),
        (17, None, "none", None),
    ],
)
def test_address_from_sockaddr_and_to_endpoint(
    family: int, sockaddr: Any, shown: str, endpoint: str | None
) -> None:
    address = Address.from_sockaddr(family, sockaddr)
    assert str(address) == shown
    if endpoint is None:
        with pytest.raises(EndpointError):
            address.to_endpoint("unix")
    else:
        assert str(address.to_endpoint(endpoint.partition(":")[0])) == endpoint
