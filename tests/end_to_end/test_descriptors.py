"""A logger with few file descriptors."""

from __future__ import annotations

import socket

import pytest

from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, NewLogger
from tests.rig.sources import Sender

pytestmark = pytest.mark.long


def test_what_they_do_not_suffice_for_is_refused_and_what_is_active_goes_on(
    new_logger: NewLogger,
) -> None:
    logger = new_logger(QUICK_INIT + "[streams.photons]\n")
    logger.start(prefix=["prlimit", "--nofile=90"])
    logger.start_run(1)
    sender = Sender(logger.data, "source", (1,), ("photons",))
    sender.send_acknowledged(1)
    logger.do("CONFIGURE", {"streams": {f"s{n}": {} for n in range(80)}})
    answer = logger.ask("START RUN", {"run": 2})
    assert not answer.ok
    assert "too many open files" in answer.error
    host, _, port = logger.event_address.removeprefix("tcp://").rpartition(":")
    idle = []
    try:
        for _ in range(100):  # a port scan
            idle.append(socket.create_connection((host, int(port)), 5))
        sender.send_acknowledged(50)
    finally:
        for connection in idle:
            connection.close()
    finish(logger, sender)
