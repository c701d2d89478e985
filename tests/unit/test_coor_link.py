"""The COOR link with real sockets, every way round: commands, answers, reconnection, bad input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from dlog.adapters.coor_link import (
    CONTROL_PATH_BYTES_MAX,
    CoorClient,
    CoorServer,
    CoorSockets,
    NoAnswer,
    _runs,
    control_address,
)
from dlog.adapters.directory_lock import DirectoryLock
from dlog.core.states import ConnectionState
from dlog.errors import Error, MessageError
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX
from dlog.model.messages import (
    Answer,
    Command,
    Identification,
    Request,
    decode_json,
    encode_json,
)
from dlog.model.status import ConnectionStatus, Whereabouts
from tests.rig.commands import CHECKOUT
from tests.waiting import LONG, until

LOOPBACK = "tcp://127.0.0.1:*"
FOREVER_MS = 10**9  # a test that waits so long is ended with where each thread stands


def who(state: str = "CONFIGURED") -> Identification:
    return Identification(
        name="daq", uuid="u" * 32, host="here", process=1, boot=1, state=state, runs={}
    )


def command(number: int, name: str = "STATUS") -> bytes:
    return encode_json(Command(session="ab" * 16, number=number, command=name))


class StandIn:
    """A commander of a few lines: carries a command out once per id, and keeps the answers."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.answers: dict[tuple[str, int], bytes] = {}
        self.malformed = 0
        self.unanswered = 0  # so many texts are lost on the way

    def take(self, link: CoorSockets, peer: bytes, text: bytes) -> None:
        if self.unanswered:
            self.unanswered -= 1
            return
        try:
            asked = decode_json(text, Command)
        except MessageError as error:
            self.malformed += 1
            answer = Answer(
                session="", number=0, command="", ok=False, state="", error=str(error),
                code="message",
            )  # fmt: skip
            link.send(peer, encode_json(answer))
            return
        key = asked.session, asked.number
        if key not in self.answers:
            self.done.append(asked.command)
            self.answers[key] = encode_json(
                Answer(
                    session=asked.session, number=asked.number, command=asked.command, ok=True,
                    state="RUNNING", data={"n": len(self.done)},
                )
            )  # fmt: skip
        link.send(peer, self.answers[key])


@contextmanager
def serving(link: CoorSockets, commander: StandIn) -> Iterator[None]:
    """The commander's thread."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            for peer, text in link.receive(10_000):
                commander.take(link, peer, text)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        link.wake()
        thread.join(LONG)
        assert not thread.is_alive()


@contextmanager
def opened(
    data: Path,
    *,
    listen: str = "",
    connect: str = "",
    identification: Callable[[], Identification] = who,
    heartbeat_ms: int = 500,
    peers_max: int = 32,
) -> Iterator[CoorSockets]:
    link = CoorSockets(
        control_address(data), listen=listen, connect=connect, identification=identification,
        heartbeat_ms=heartbeat_ms, peers_max=peers_max,
    )  # fmt: skip
    (data / "logger.json").write_bytes(
        b'{"name":"daq","pid":1,"control":"%s"}' % link.control_address.encode()
    )
    try:
        yield link
    finally:
        link.close()


@contextmanager
def raw_peer(address: str, **options: int) -> Iterator[zmq.Socket[bytes]]:
    """A peer that may do anything."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    for name, value in options.items():
        socket.setsockopt(getattr(zmq, name), value)
    socket.connect(address)
    try:
        yield socket
    finally:
        socket.close(0)
        context.term()


@contextmanager
def flood(address: str) -> Iterator[None]:
    """A peer that never stops talking."""
    over = threading.Event()

    def talk() -> None:
        with raw_peer(address) as peer:
            while not over.is_set():
                if peer.poll(10, zmq.POLLOUT):
                    peer.send(b'{"type":"flood"}', zmq.NOBLOCK)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LONG)


def answered(socket: zmq.Socket[bytes]) -> Answer:
    """The next answer that the peer gets; identifications in between are passed over."""
    texts: list[bytes] = []

    def has_come() -> bool:
        if socket.poll(100):
            texts.append(socket.recv())
        return bool(texts) and b'"type":"answer"' in texts[-1]

    until(has_come, "no answer")
    return decode_json(texts[-1], Answer)


def link_of(link: CoorSockets, kind: str) -> ConnectionStatus:
    return next(status for status in link.connections() if status.kind == kind)


def receive_until(link: CoorSockets, true: Callable[[], bool]) -> list[tuple[bytes, bytes]]:
    texts: list[tuple[bytes, bytes]] = []
    until(lambda: true() or texts.extend(link.receive(10)))
    return texts


def receive_command(link: CoorSockets) -> tuple[bytes, bytes]:
    """The first command that comes; clients say other things before."""
    commands: list[tuple[bytes, bytes]] = []

    def has_come() -> bool:
        commands.extend(come for come in link.receive(10) if b'"command"' in come[1])
        return bool(commands)

    until(has_come, "no command came")
    return commands[0]


# --- ways in -----------------------------------------------------------------------------------


def test_the_control_socket_lies_in_the_data_directory(tmp_path: Path) -> None:
    assert control_address(tmp_path) == f"ipc://{tmp_path.resolve()}/control.sock"


def test_a_path_too_long_for_a_socket_becomes_a_loopback_port(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * CONTROL_PATH_BYTES_MAX)
    deep.mkdir()
    with opened(deep) as link, serving(link, StandIn()), CoorClient(deep) as coor:
        assert link.control_address.startswith("tcp://127.0.0.1:")
        assert coor.ask("STATUS", timeout=LONG).ok


def test_a_command_comes_in_by_each_way(tmp_path: Path) -> None:
    commander = StandIn()
    with (
        CoorServer(LOOPBACK) as server,
        opened(tmp_path, listen=LOOPBACK, connect=server.address) as link,
        serving(link, commander),
        CoorClient(tmp_path) as local,
        CoorClient(link.listen_address) as client,
    ):
        assert local.ask("INIT", {"a": 1}, LONG).command == "INIT"
        assert client.ask("CONFIGURE", timeout=LONG).command == "CONFIGURE"
        assert server.wait_for_logger(LONG).name == "daq"
        assert server.ask("START RUN", {"run": 1}, LONG).command == "START RUN"
    assert commander.done == ["INIT", "CONFIGURE", "START RUN"]


def test_the_file_of_a_killed_logger_does_not_hinder_the_next(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    (tmp_path / "control.sock").touch()
    with opened(tmp_path) as link, serving(link, StandIn()), CoorClient(tmp_path) as coor:
        assert coor.ask("STATUS", timeout=LONG).ok


def test_an_address_that_is_taken_is_an_error_with_the_address(tmp_path: Path) -> None:
    with opened(tmp_path, listen=LOOPBACK) as link:
        taken = link.listen_address
        with pytest.raises(Error, match=taken):
            CoorSockets(f"ipc://{tmp_path}/other.sock", listen=taken, identification=who)


# --- ids ---------------------------------------------------------------------------------------


def test_a_session_is_random_and_counts_from_one(tmp_path: Path) -> None:
    with (
        opened(tmp_path) as link,
        serving(link, StandIn()),
        CoorClient(tmp_path) as one,
        CoorClient(tmp_path) as other,
    ):
        assert one.session != other.session
        assert len(bytes.fromhex(one.session)) == 16
        assert [one.ask("STATUS", timeout=LONG).number for _ in range(3)] == [1, 2, 3]


def test_a_repeated_id_gets_the_recorded_answer_and_does_nothing(tmp_path: Path) -> None:
    commander = StandIn()
    with opened(tmp_path) as link, serving(link, commander), CoorClient(tmp_path) as coor:
        first = coor.ask("INIT", timeout=LONG)
        with CoorClient(tmp_path) as another:
            again = another.ask("INIT", timeout=LONG, command_id=(first.session, first.number))
    assert again == first
    assert commander.done == ["INIT"]


def test_a_lost_command_is_sent_again_with_the_same_id(tmp_path: Path) -> None:
    commander = StandIn()
    commander.unanswered = 2
    with opened(tmp_path) as link, serving(link, commander), CoorClient(tmp_path) as coor:
        assert coor.ask("INIT", timeout=LONG).number == 1
    assert commander.unanswered == 0
    assert commander.done == ["INIT"]


def test_a_busy_logger_is_asked_again(tmp_path: Path) -> None:
    commander = StandIn()
    with opened(tmp_path) as link, serving(link, commander), CoorClient(tmp_path) as coor:
        key = coor.session, 1
        commander.answers[key] = encode_json(
            Answer(session=coor.session, number=1, command="INIT", ok=False, state="", code="busy")
        )
        threading.Timer(0.1, commander.answers.pop, [key]).start()
        assert coor.ask("INIT", timeout=LONG).ok


@pytest.mark.parametrize("way", ["control", "listen", "connect"])
def test_a_crash_and_resume_of_the_logger_is_bridged(tmp_path: Path, way: str) -> None:
    """The answer was committed and never left; whoever asks, asks the resumed logger again."""
    commander = StandIn()
    answers: list[Answer] = []
    with CoorServer(LOOPBACK) as server:
        connect = server.address if way == "connect" else ""
        with opened(tmp_path, listen=LOOPBACK if way == "listen" else "", connect=connect) as link:
            listen = link.listen_address
            client = CoorClient(listen) if way == "listen" else CoorClient(tmp_path)
            coor = server if way == "connect" else client
            asking = threading.Thread(
                target=lambda: answers.append(coor.ask("INIT", timeout=LONG)), daemon=True
            )
            asking.start()
            texts: list[tuple[bytes, bytes]] = []
            while not texts:
                texts = link.receive(100)
            commander.answers[decode_json(texts[0][1], Command).session, 1] = b""
            commander.take(_Mute(), *texts[0])  # type: ignore[arg-type]
            recorded = {key: _recorded(key) for key in commander.answers}
        commander.answers = recorded
        with opened(tmp_path, listen=listen, connect=connect) as link, serving(link, commander):
            asking.join(LONG)
        client.close()
    assert [answer.state for answer in answers] == ["RECORDED"]
    assert commander.done == []


class _Mute:
    """A link that dies before anything leaves."""

    def send(self, peer: bytes, message: bytes) -> None:
        pass


def _recorded(key: tuple[str, int]) -> bytes:
    session, number = key
    return encode_json(
        Answer(session=session, number=number, command="INIT", ok=True, state="RECORDED")
    )


# --- nobody there ------------------------------------------------------------------------------


def test_no_logger_is_an_error_in_time(tmp_path: Path) -> None:
    with CoorClient(tmp_path) as coor, pytest.raises(NoAnswer, match="no logger has been") as error:
        coor.ask("STATUS", timeout=0.2)
    assert not error.value.sent


def test_a_logger_that_was_killed_is_said_to_be_gone(tmp_path: Path) -> None:
    gone = Whereabouts(control=f"ipc://{tmp_path}/control.sock", pid=4194305)  # above pid_max
    (tmp_path / "logger.json").write_bytes(encode_json(gone))
    with CoorClient(tmp_path) as coor, pytest.raises(NoAnswer, match="process 4194305 is gone"):
        coor.ask("STATUS", timeout=0.2)


def test_a_logger_that_died_at_once_is_not_waited_for(tmp_path: Path) -> None:
    DirectoryLock.acquire(tmp_path).release()
    with (
        CoorClient(tmp_path, gone_seconds=0.0) as coor,
        pytest.raises(NoAnswer, match="ended before it could be reached"),
    ):
        coor.ask("INIT", timeout=FOREVER_MS)


def test_a_number_that_another_process_has_now_is_no_logger(tmp_path: Path) -> None:
    ours = Whereabouts(control=f"ipc://{tmp_path}/control.sock", pid=os.getpid())
    (tmp_path / "logger.json").write_bytes(encode_json(ours))
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    with (
        CoorClient(tmp_path, gone_seconds=0.0) as coor,
        pytest.raises(NoAnswer, match=f"process {os.getpid()} is another program") as error,
    ):
        coor.ask("STOP", timeout=FOREVER_MS)
    assert not error.value.sent


def test_a_logger_that_ended_and_that_no_parent_asked_for_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        until(lambda: not _runs(ended.pid), "it ends")
        theirs = Whereabouts(control=f"ipc://{tmp_path}/control.sock", pid=ended.pid)
        (tmp_path / "logger.json").write_bytes(encode_json(theirs))
        with (
            CoorClient(tmp_path, gone_seconds=0.0) as coor,
            pytest.raises(NoAnswer, match=f"process {ended.pid} is gone"),
        ):
            coor.ask("STOP", timeout=FOREVER_MS)


def test_a_logger_that_is_gone_is_not_waited_for_but_one_that_starts_is(tmp_path: Path) -> None:
    gone = Whereabouts(control=f"ipc://{tmp_path}/control.sock", pid=4194305)  # above pid_max
    (tmp_path / "logger.json").write_bytes(encode_json(gone))
    with CoorClient(tmp_path, gone_seconds=0.0) as coor:
        with pytest.raises(NoAnswer, match="process 4194305 is gone"):
            coor.ask("STOP", timeout=FOREVER_MS)
        # It holds its directory from its first moments on.
        with DirectoryLock.acquire(tmp_path), pytest.raises(NoAnswer, match=r"waited 0\.3 s"):
            coor.ask("STOP", timeout=0.3)


def test_a_logger_that_dies_with_the_command_is_not_waited_for(tmp_path: Path) -> None:
    commander = StandIn()
    commander.unanswered = 1000
    with CoorClient(tmp_path, gone_seconds=0.0) as coor:
        with opened(tmp_path) as link, serving(link, commander):
            asked: list[NoAnswer] = []

            def ask() -> None:
                with pytest.raises(NoAnswer) as error:
                    coor.ask("STOP", timeout=FOREVER_MS)
                asked.append(error.value)

            thread = threading.Thread(target=ask)
            thread.start()
            until(lambda: commander.unanswered < 1000, "the command is there")
        thread.join(LONG)
    (error,) = asked
    assert error.sent
    assert "no logger runs on" in str(error)


def test_a_logger_that_does_not_answer_may_have_carried_it_out(tmp_path: Path) -> None:
    with opened(tmp_path), CoorClient(tmp_path) as coor:

        def is_sent_and_not_answered() -> bool:
            with pytest.raises(NoAnswer) as error:
                coor.ask("INIT", timeout=0.3)
            assert error.value.sent == str(error.value).startswith("no answer to INIT")
            return error.value.sent

        until(is_sent_and_not_answered, "it is never sent")


def test_what_is_no_data_directory_is_said_at_once(tmp_path: Path) -> None:
    with CoorClient(tmp_path / "none") as coor, pytest.raises(NoAnswer, match="not a directory"):
        coor.ask("STATUS", timeout=LONG)


def test_a_broken_logger_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "logger.json").write_text("{")
    with CoorClient(tmp_path) as coor, pytest.raises(NoAnswer, match=r"logger\.json"):
        coor.ask("STATUS", timeout=LONG)


def test_a_server_without_loggers_says_so_in_time() -> None:
    with CoorServer(LOOPBACK) as server, pytest.raises(NoAnswer, match="no logger connected"):
        server.wait_for_logger(0.1)


def test_an_answer_to_nobody_raises_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, connect="tcp://127.0.0.1:1") as link:
        for peer in (b"", b"c", b"cnobody", b"d", b"lnobody", b"?"):
            link.send(peer, b"{}")
        link.tell(b"{}")


def test_closing_does_not_wait_for_a_peer_that_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path, connect="tcp://127.0.0.1:1") as link:
        link.tell(b"{}")


def test_stop_is_answered(tmp_path: Path) -> None:
    with CoorClient(tmp_path) as coor, opened(tmp_path) as link:
        commander = StandIn()
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(coor.ask("STOP", timeout=LONG)))
        asking.start()
        peer, text = receive_command(link)
        commander.take(link, peer, text)
        # As the logger does: what a peer did not read yet goes with the connection.
        asking.join(LONG)
    assert [answer.command for answer in answers] == ["STOP"]


# --- identification and reconnection -------------------------------------------------------------


def test_the_logger_identifies_itself_with_its_state_of_now(tmp_path: Path) -> None:
    states = iter(f"S{n}" for n in range(10_000))
    with CoorServer(LOOPBACK) as server:
        link = opened(
            tmp_path, connect=server.address, identification=lambda: who(next(states)),
            heartbeat_ms=20,
        )  # fmt: skip
        with link as sockets, serving(sockets, StandIn()):
            seen = {server.wait_for_logger(LONG).state}
            while len(seen) < 5:
                assert server.ask("STATUS", timeout=LONG).ok  # and hear what else comes
                seen |= {said.state for said in server.loggers()}


def test_coor_comes_back_and_the_logger_identifies_itself_again(tmp_path: Path) -> None:
    with CoorServer(LOOPBACK, name="first") as server:
        address = server.address
        link = CoorSockets(
            control_address(tmp_path), connect=address, identification=who, heartbeat_ms=60_000
        )
        with serving(link, StandIn()):
            assert server.wait_for_logger(LONG).name == "daq"
            assert server.ask("INIT", timeout=LONG).ok
    receive_until(link, lambda: link_of(link, "coor").state != ConnectionState.CONNECTED)
    with serving(link, StandIn()), CoorServer(address, name="second") as server:
        # No heartbeat is due for a minute: this identification is that of the new connection.
        assert server.wait_for_logger(LONG).name == "daq"
        assert server.ask("STATUS", timeout=LONG).ok
    status = link_of(link, "coor")
    assert (status.name, status.reconnects) == ("second", 1)
    link.close()


def test_a_coor_that_connects_learns_who_the_logger_is(tmp_path: Path) -> None:
    with (
        opened(tmp_path, listen=LOOPBACK) as link,
        serving(link, StandIn()),
        raw_peer(link.listen_address) as coor,
    ):
        coor.send(command(1))
        assert coor.poll(int(LONG * 1000))
        assert decode_json(coor.recv(), Identification) == who()
        assert answered(coor).number == 1


def test_a_request_reaches_coor_both_ways_round(tmp_path: Path) -> None:
    request = Request(name="daq", request="pause", runs=[7], reason="disk nearly full")
    with (
        CoorServer(LOOPBACK) as server,
        opened(tmp_path, listen=LOOPBACK, connect=server.address) as link,
        CoorClient(link.listen_address) as client,
    ):
        with serving(link, StandIn()):
            server.wait_for_logger(LONG)
            assert client.ask("STATUS", timeout=LONG).ok
        link.tell(encode_json(request))
        with serving(link, StandIn()):
            assert client.ask("STATUS", timeout=LONG).ok
            assert server.ask("STATUS", timeout=LONG).ok
        assert client.requests() == [request]
        assert server.requests() == [request]
        assert server.requests() == []


def test_a_server_talks_to_the_logger_that_it_was_told(tmp_path: Path) -> None:
    with CoorServer(LOOPBACK, logger="two") as server:
        commanders = {name: StandIn() for name in ("one", "two", "three")}
        links = {
            name: CoorSockets(
                f"ipc://{tmp_path}/{name}.sock",
                connect=server.address,
                identification=lambda name=name: Identification(
                    name=name, uuid=name, host="", process=1, boot=1, state=""
                ),
            )
            for name in commanders
        }
        with (
            serving(links["one"], commanders["one"]),
            serving(links["two"], commanders["two"]),
            serving(links["three"], commanders["three"]),
        ):
            assert server.ask("INIT", timeout=LONG).ok
        for link in links.values():
            link.close()
    assert [len(commanders[name].done) for name in ("one", "two", "three")] == [0, 1, 0]


def test_a_coor_that_leaves_stays_in_the_status_as_lost(tmp_path: Path) -> None:
    with opened(tmp_path, listen=LOOPBACK) as link:
        with serving(link, StandIn()), CoorClient(link.listen_address, name="run-control") as coor:
            coor.ask("STATUS", timeout=LONG)
        receive_until(link, lambda: link_of(link, "coor").state == ConnectionState.LOST)
        lost = link_of(link, "coor")
        assert (lost.name, lost.messages_in) == ("run-control", 2)
        with serving(link, StandIn()), CoorClient(link.listen_address, name="run-control") as coor:
            coor.ask("STATUS", timeout=LONG)
        known = [status for status in link.connections() if status.kind == "coor"]
        assert [(status.name, status.reconnects) for status in known] == [("run-control", 1)]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\x00\xff\xfe",
        b"[]",
        b'"STATUS"',
        b'{"session": 5}',
        b'{"type": 7}',
        b'{"session":"ab","number":1,"command":"X","parameters":' + b'{"a":' * 50_000,
        b"[" * 200_000,
    ],
)
def test_what_cannot_be_read_goes_to_the_commander_for_an_answer(
    tmp_path: Path, text: bytes
) -> None:
    commander = StandIn()
    with (
        opened(tmp_path) as link,
        serving(link, commander),
        raw_peer(link.control_address) as peer,
    ):
        peer.send(text)
        answer = answered(peer)
        assert (answer.ok, answer.code) == (False, "message")
        peer.send(command(1))
        assert answered(peer).ok
    assert commander.malformed == 1


def test_other_types_are_counted_in_a_bounded_table_and_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path, listen=LOOPBACK) as link, raw_peer(link.listen_address) as peer:
        for kind in ("event", "event", "answer", "x" * 1000):
            peer.send(b'{"type":"%s"}' % kind.encode())
        peer.send_multipart([command(1), command(2)])
        for number in range(100):
            peer.send(b'{"type":"made-up-%d"}' % number)
        assert receive_until(link, lambda: link_of(link, "coor").messages_in >= 105) == []
        skipped = link_of(link, "coor").skipped
    assert skipped["event"] == 2
    assert skipped["not one frame"] == 1
    assert max(map(len, skipped)) <= 40
    assert len(skipped) <= 33
    assert sum(skipped.values()) == 105


def test_an_oversized_message_costs_its_sender_the_connection_and_nobody_else(
    tmp_path: Path,
) -> None:
    commander = StandIn()
    with (
        opened(tmp_path, listen=LOOPBACK) as link,
        serving(link, commander),
        raw_peer(link.listen_address) as bad,
        raw_peer(link.listen_address) as good,
    ):
        good.send(command(1))
        assert answered(good).ok
        bad.send(b"x" * (CONTROL_MESSAGE_BYTES_MAX + 1))
        answer = None
        while answer is None:
            bad.send(command(2))  # until there is the connection that comes after
            answer = answered(bad) if bad.poll(100) else None
        assert answer.number == 2
        good.send(command(3))
        assert answered(good).number == 3
    assert commander.malformed == 0


def test_a_command_too_long_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with CoorClient(tmp_path) as coor, pytest.raises(MessageError, match="oversized"):
        coor.ask("INIT", {"x": "y" * CONTROL_MESSAGE_BYTES_MAX}, LONG)


def test_a_flood_that_nobody_reads_stays_with_its_sender(tmp_path: Path) -> None:
    """The high-water marks reach back: of 400 MB offered, only a few are taken in."""
    text = b'{"type":"flood","x":"' + b"x" * 200_000 + b'"}'
    with opened(tmp_path) as link, raw_peer(link.control_address, SNDHWM=4) as peer:
        taken, quiet = 0, 0
        for _ in range(2000):
            if not peer.poll(20, zmq.POLLOUT):
                quiet += 1
                if quiet == 10:
                    break
                continue
            peer.send(text, zmq.NOBLOCK)
            taken += 1
        assert quiet == 10, "it took everything"
        assert taken * len(text) < 32 * 1024 * 1024
        assert link.receive(0) == []  # and what is read is skipped, in bounded steps


def test_a_flood_does_not_keep_others_from_being_answered(tmp_path: Path) -> None:
    with (
        opened(tmp_path, listen=LOOPBACK) as link,
        serving(link, StandIn()),
        flood(link.listen_address),
        CoorClient(tmp_path) as local,
        CoorClient(link.listen_address) as remote,
    ):
        for _ in range(5):
            assert local.ask("STATUS", timeout=LONG).ok
            assert remote.ask("STATUS", timeout=LONG).ok


@pytest.mark.parametrize("way", ["control", "listen"])
def test_a_flooding_peer_that_leaves_does_not_take_us_with_it(tmp_path: Path, way: str) -> None:
    """ZeroMQ's own heartbeats abort the process here: docs/decisions/0010."""
    with opened(tmp_path, listen=LOOPBACK) as link:
        address = link.control_address if way == "control" else link.listen_address
        with raw_peer(address, RCVHWM=1) as peer:
            while peer.poll(100, zmq.POLLOUT):
                peer.send(b'{"type":"flood"}', zmq.NOBLOCK)
        # Nothing happens for as long as a heartbeat would need to go wrong; then reading goes on.
        threading.Event().wait(0.7)
        receive_until(link, lambda: link.receive(50) == [])
        with serving(link, StandIn()), CoorClient(tmp_path) as coor:
            assert coor.ask("STATUS", timeout=LONG).ok


def test_receive_returns_in_time_however_much_is_skipped(tmp_path: Path) -> None:
    with opened(tmp_path) as link, flood(link.control_address):
        assert link.receive(200) == []  # while the flood goes on


def test_the_peers_that_are_remembered_are_bounded(tmp_path: Path) -> None:
    with opened(tmp_path, listen=LOOPBACK, peers_max=4) as link, serving(link, StandIn()):
        for _ in range(12):
            with raw_peer(link.listen_address) as peer:
                peer.send(command(1))
                assert answered(peer).ok
        with CoorClient(tmp_path) as coor:
            assert coor.ask("STATUS", timeout=LONG).ok
        assert len([each for each in link.connections() if each.kind == "coor"]) <= 4


# --- waking ------------------------------------------------------------------------------------


def test_a_wake_from_another_thread_ends_receive(tmp_path: Path) -> None:
    with opened(tmp_path) as link:
        threading.Timer(0.05, link.wake).start()
        assert link.receive(FOREVER_MS) == []


def test_a_wake_before_receive_is_not_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as link:
        link.wake()
        assert link.receive(FOREVER_MS) == []


def test_a_wake_after_the_end_does_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as link:
        pass
    link.wake()


def test_nothing_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with opened(tmp_path, listen=LOOPBACK, connect="tcp://127.0.0.1:1"):
        pass
    before = descriptors()
    for _ in range(3):
        with (
            opened(tmp_path, listen=LOOPBACK, connect="tcp://127.0.0.1:1") as link,
            serving(link, StandIn()),
            CoorClient(tmp_path) as coor,
        ):
            coor.ask("STATUS", timeout=LONG)
    assert descriptors() <= before


# --- the specification ---------------------------------------------------------------------------


def test_the_example_of_the_specification_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CHECKOUT / "docs" / "PROTOCOL.md").read_text()
    section = text.partition("\n## COOR link\n")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    address = f"ipc://{tmp_path}/coor.sock"
    assert '"tcp://*:5570"' in example
    commander = StandIn()
    said: dict[str, Any] = {}
    with opened(tmp_path, connect=address) as link, serving(link, commander):
        exec(example.replace('"tcp://*:5570"', repr(address)), said)
        said["coor"].close(0)
        said["coor"].context.term()
    assert commander.done == ["START RUN"]
    assert "'type': 'identification'" in capsys.readouterr().out
