"""What may be written for an address, and what an error says of one that may not."""

from __future__ import annotations

import pytest

from dlog.model.address import address_problem


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:5555",
        "tcp://daq-1.example.org:1",
        "tcp://readout_3:65535",
        "ipc:///run/a b",
    ],
)
def test_an_address_to_connect_to_and_to_listen_at(text: str) -> None:
    assert address_problem(text, bound=False) == address_problem(text, bound=True) == ""


@pytest.mark.parametrize("text", ["tcp://*:5555", "tcp://127.0.0.1:*", "tcp://eth0:0"])
def test_all_interfaces_and_a_free_port_are_for_a_listener_alone(text: str) -> None:
    assert address_problem(text, bound=True) == ""
    assert address_problem(text, bound=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty address"),
        ("127.0.0.1:5555", "is not an address"),
        ("http://host:80", "http:// is not a transport"),
        ("TCP://host:80", "TCP:// is not a transport"),
        ("udp://host:80", "udp:// is not a transport"),
        ("tcp://", "the port is missing"),
        ("tcp://host", "the port is missing"),
        ("tcp://host:", "the port is missing"),
        ("tcp://:5555", "the host is missing"),
        ("tcp://host:65536", "port 65536: from"),
        ("tcp://host:" + "9" * 5000, "from"),
        ("tcp://host:-1", "'-1' is not a port"),
        ("tcp://host:55x", "'55x' is not a port"),
        ("tcp://host:\u0665", "is not a port"),
        ("tcp://host:5/path", "'5/path' is not a port"),
        ("tcp://ho st:5", "'ho st' is not a host"),
        ("tcp://me@host:5", "'me@host' is not a host"),
        ("tcp://host:5\n", "is not a port"),
        ("tcp://[::1]:5555", "IPv6 addresses are not supported"),
        ("tcp://::1:5555", "IPv6 addresses are not supported"),
        ("ipc://", "the path is missing"),
        ("ipc://a\0b", "a zero byte"),
        ("ipc:///" + "x" * 107, "a path of 108 bytes; 107"),
    ],
)
def test_an_address_that_cannot_be_is_named_with_what_is_wrong(text: str, words: str) -> None:
    for bound in (False, True):
        assert words in address_problem(text, bound=bound)
