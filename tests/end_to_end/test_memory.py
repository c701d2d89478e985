"""Memory stays bounded, whoever is slow, dead or greedy; and dead listeners slow nobody down."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import dlog
from dlog.errors import SourceError
from dlog.limits import MIB
from tests.rig.exactly_once import assert_exactly_once
from tests.rig.filesystems import Hog, small_disk
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.raw_source import RawSource
from tests.rig.sources import Sender
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

MEMORY_BYTES = 64 * MIB
CONFIGURATION = (
    QUICK_INIT
    + """
memory_bytes = "64 MiB"
[init.stream_defaults]
reserve_bytes = "1 MiB"
[streams.good]
directories = [0]
[streams.stalled]
directories = [1]
"""
)


@pytest.fixture
def stalled(new_logger: NewLogger, tmp_path: Path) -> Iterator[LoggerProcess]:
    """Run 7 is active; nothing can be written to its stream `stalled`."""
    with small_disk(tmp_path / "s", 48 * MIB) as disk:
        data = tmp_path / "logger" / "data"
        logger = new_logger(f'[logger]\ndata = ["{data}", "{disk}"]\n{CONFIGURATION}', data=data)
        logger.start()
        logger.start_run(7)
        Hog.full(disk)
        yield logger
        logger.kill()


def flood(source: dlog.Source) -> None:
    """Send without end to the stream that stalls; until the source is closed."""
    payload = bytes(64 * 1024 * 16)
    try:
        while True:
            source.send_many("stalled", payload, sizes=[64 * 1024] * 16)
    except SourceError:
        return


def test_a_fast_source_and_a_stalled_stream_take_no_more_than_their_share(
    stalled: LoggerProcess,
) -> None:
    before = stalled.resident_bytes()
    fast = dlog.Source(stalled.data, name="fast", run=7, queue_bytes=32 * MIB)
    flooding = threading.Thread(target=flood, args=(fast,))
    flooding.start()
    good = Sender(stalled.data, "good", (7,), ("good",))
    good.start()
    try:
        until(lambda: "stalled run 7 stream stalled" in stalled.alarms(), "the stream stalls")
        stored, seen = good.source.acknowledged, [before]

        def goes_on() -> bool:
            seen.append(stalled.resident_bytes())
            return good.source.acknowledged > stored + 800

        until(goes_on, "the other stream goes on", every=0.05)
        assert max(seen) - before < 1.5 * MEMORY_BYTES, f"{(max(seen) - before) // MIB} MiB"
        memory = stalled.status().memory
        assert memory.in_use_bytes <= MEMORY_BYTES
        assert fast.report().queued_bytes <= 33 * MIB
    finally:
        good.halt()
        with pytest.raises(SourceError):
            fast.close(0)
        flooding.join(LONG)
        good.finish()


def test_sources_that_die_one_after_another_add_nothing_to_the_memory(
    stalled: LoggerProcess,
) -> None:
    address = stalled.event_address
    payload = bytes(MIB)
    for generation in range(2):
        with ExitStack() as crowd:
            raws = [
                crowd.enter_context(RawSource(address, f"dying-{generation}-{i}")) for i in range(8)
            ]
            for raw in raws:
                raw.hello()
                raw.hear_until(lambda raw=raw: raw.ack is not None, "an answer")  # type: ignore[misc]
            for raw in raws:
                assert raw.ack is not None
                while raw.position + MIB + 1000 < raw.ack.limit_bytes:
                    raw.send_next(raw.batch(7, "stalled", [payload]))
            until(
                lambda raws=raws: all(  # type: ignore[misc]
                    stalled.source_status(raw.name).bytes_in >= raw.position for raw in raws
                ),
                "all of it has come",
            )
        until(
            lambda g=generation: all(  # type: ignore[misc]
                c.state == "lost"
                for c in stalled.status().connections
                if c.name.startswith(f"dying-{g}")
            ),
            "they are missed",
        )
        in_use = stalled.status().memory.in_use_bytes
        assert in_use <= MEMORY_BYTES // 2 + MIB, f"{in_use // MIB} MiB after {generation + 1}"


def test_a_dead_alarm_server_and_a_monitor_that_does_not_listen_slow_nobody_down(
    new_logger: NewLogger,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        dead_port = gone.getsockname()[1]
        gone.close()
        listeners = (
            f'alarm_server = "tcp://127.0.0.1:{dead_port}"\n'
            f'monitor = "tcp://127.0.0.1:{deaf.getsockname()[1]}"\nmonitor_interval_ms = 50\n'
        )
        logger = new_logger(
            QUICK_INIT + listeners + '[streams.good]\nreserve_bytes = "1 MiB"\n'
        ).start()
        logger.start_run(7)
        sender = Sender(logger.data, "good", (7,), ("good",))
        with RawSource(logger.event_address, "noisy").open() as noisy:
            sender.start()
            until(lambda: sender.source.acknowledged > 100, "events are stored")
            before = logger.resident_bytes()
            for i in range(500):
                noisy.send(b"no frame at all, and long enough %d" % i)
            stored = sender.source.acknowledged
            until(lambda: sender.source.acknowledged > stored + 500, "events are stored")
            assert logger.resident_bytes() < before + 16 * MIB
            noisy.bye()
        states = {c.kind: c.state for c in logger.status().connections}
        assert states["alarm-server"] != "connected"
        sender.halt()
        sender.source.flush(LONG)
        logger.stop_run(7)
        sender.finish()
        logger.signal(signal.SIGTERM)
        assert logger.ended() == 0
    assert_exactly_once(logger.data, sender)
