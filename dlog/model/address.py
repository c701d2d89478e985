"""Addresses of the links: what may be written for one, and what is wrong with a text that may not.
It resolves no name and opens nothing."""

from __future__ import annotations

import re
from typing import Final

PORT_MAX: Final = 65_535
IPC_PATH_BYTES_MAX: Final = 107  # sun_path, without its last zero
FORMS: Final = "tcp://HOST:PORT or ipc://PATH"

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z")


def address_problem(text: str, *, bound: bool) -> str:
    """What is wrong with an address, in words, or "".

    bound: somebody listens there, so that host and port may be `*` (all interfaces, a free port).
    """
    scheme = _SCHEME.match(text)
    if not text:
        return f"an empty address; {FORMS} is needed"
    if scheme is None:
        return f"{text!r} is not an address ({FORMS})"
    rest = text[scheme.end() :]
    if scheme[1] == "tcp":
        wrong = _tcp_problem(rest, bound=bound)
    elif scheme[1] == "ipc":
        wrong = _ipc_problem(rest)
    else:
        wrong = f"{scheme[1]}:// is not a transport of dlog"
    return f"{text!r} is not an address ({FORMS}): {wrong}" if wrong else ""


def _tcp_problem(rest: str, *, bound: bool) -> str:
    host, colon, port = rest.rpartition(":")
    if "[" in rest or rest.count(":") > 1:
        return "IPv6 addresses are not supported, give an IPv4 address or a host name"
    if not colon:
        return "the port is missing"
    if not host:
        return "the host is missing"
    if host == "*" and not bound:
        return "* is no host to connect to"
    if host != "*" and not _HOST.match(host):
        return f"{host!r} is not a host"
    if port == "*" and bound:
        return ""
    if not (port.isascii() and port.isdigit()):
        return f"{port!r} is not a port" if port else "the port is missing"
    # ZeroMQ takes a number that is too large for a port for another one, without a word.
    lowest = 0 if bound else 1
    number = int(port) if len(port) <= len(str(PORT_MAX)) else PORT_MAX + 1
    if not lowest <= number <= PORT_MAX:
        return f"port {port}: from {lowest} to {PORT_MAX}"
    return ""


def _ipc_problem(path: str) -> str:
    size = len(path.encode(errors="surrogateescape"))
    if not path:
        return "the path is missing"
    if "\0" in path:
        return "the path has a zero byte"
    if size > IPC_PATH_BYTES_MAX:
        return f"a path of {size} bytes; {IPC_PATH_BYTES_MAX} is the limit of the system"
    return ""
