"""How a connection whose peer vanished is found: by the kernel, not by ZeroMQ's own heartbeats.

Those abort the process when the receive queue is full and the peer goes away; see
docs/decisions/0010-no-zeromq-heartbeats.md.
"""

from __future__ import annotations

from typing import Final

import zmq

from dlog.limits import HEARTBEAT_MS, HEARTBEATS_MISSED_MAX

SILENT_MS: Final = HEARTBEAT_MS * HEARTBEATS_MISSED_MAX


def find_vanished_peers(socket: zmq.Socket[bytes], *, unacknowledged_ms: int = SILENT_MS) -> None:
    """Drop a connection that does not answer for about as long as missed heartbeats are borne.

    unacknowledged_ms: how long what was sent may lie unread at the other end.
    """
    socket.setsockopt(zmq.HANDSHAKE_IVL, SILENT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, max(1, SILENT_MS // 1000))
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, unacknowledged_ms)
