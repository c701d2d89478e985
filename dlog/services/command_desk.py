"""The desk: takes COOR's commands in, once each, and gives their answers out.

It knows ids, repeated commands, recorded answers and the logger's own record; what a command does
is the commander's. An answer is committed with the change that it tells of, and sent after that. A
refusal changes nothing: if the journal does not take it now, it is sent all the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from crc32c import crc32c

from dlog.core import journal_records as records
from dlog.core.journal_records import CommandRecord, LoggerRecord, Pending
from dlog.core.states import LOGGER, LoggerEvent, LoggerState
from dlog.errors import CommandRefused, ConfigurationError, Error, JournalFailed, MessageError
from dlog.limits import (
    COMMAND_NAME_LETTERS_MAX,
    COMMANDS_IN_HAND_MAX,
    COMMANDS_KEPT_MAX,
    ERROR_LETTERS_MAX,
)
from dlog.model.ids import CommandId
from dlog.model.messages import Answer, Command, decode_json, encode_json
from dlog.model.status import CommandStatus
from dlog.ports import Change, Clock, CoorLink, Journal
from dlog.services.committer import Committer

log = logging.getLogger("dlog.commander")

LAST_COMMANDS: Final = 20
_ENDING: Final = frozenset({"STOP", "STOP RUN", "ABORT RUN"})
ITSELF: Final = b""  # the peer of commands that the logger gives itself


class Refusal(CommandRefused):
    """A command that cannot be done; `code` is the answer's."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Asked:
    """A command that is being carried out, and who waits for its answer."""

    id: CommandId
    command: str
    body_crc: int
    order: int
    peers: set[bytes]

    @property
    def pending(self) -> Pending:
        """What a run's record keeps of it, so that a restart answers it."""
        return Pending(
            session=self.id.session, number=self.id.number, body_crc=self.body_crc, order=self.order
        )


class Desk:
    """Used by the commander's thread; `post` brings what follows a commit back to it."""

    def __init__(
        self,
        link: CoorLink,
        journal: Journal,
        committer: Committer,
        clock: Clock,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._link = link
        self._journal = journal
        self._committer = committer
        self._clock = clock
        self._post = post
        self.record = LoggerRecord(state=LoggerState.PREINITIALIZED)
        self.since_ns = clock.wall_ns()
        self.last: deque[CommandStatus] = deque(maxlen=LAST_COMMANDS)
        self._asked: dict[CommandId, Asked] = {}
        self._refused: dict[CommandId, Answer] = {}  # on their way into the journal

    # --- coming in ---------------------------------------------------------------------------

    def take(self, peer: bytes, text: bytes) -> Command | None:
        """The command, or None where the text is none: then that was answered."""
        try:
            command = decode_json(text, Command)
            _id_of(command)
        except MessageError as error:
            self._send(peer, self.error_answer(None, str(error), "message"))
            return None
        return command

    def open(self, peer: bytes, command: Command) -> Asked | None:
        """A command to be carried out, or None for one that was given before: a repeated id gets
        the recorded answer, and with another body it is refused."""
        command_id = _id_of(command)
        body_crc = crc32c(
            msgspec.json.encode([command.command, command.parameters], order="deterministic")
        )
        if self._is_repeated(peer, command, command_id, body_crc):
            return None
        # Refusals may wait for a full journal: what ends a run has room of its own beside them.
        most = COMMANDS_IN_HAND_MAX * (2 if command.command in _ENDING else 1)
        if len(self._asked) >= most:
            text = f"{len(self._asked)} commands are being carried out; ask again later"
            self._send(peer, self.error_answer(command, text, "busy"))
            return None
        asked = Asked(command_id, command.command, body_crc, self.record.next_command_order, {peer})
        self.record = msgspec.structs.replace(
            self.record, next_command_order=self.record.next_command_order + 1
        )
        self._asked[command_id] = asked
        return asked

    def _is_repeated(
        self, peer: bytes, command: Command, command_id: CommandId, body_crc: int
    ) -> bool:
        known_crc: int | None = None
        recorded: CommandRecord | None = None
        if (asked := self._asked.get(command_id)) is not None:
            known_crc = asked.body_crc
        else:
            key = records.command_key(command_id)
            value = self._journal.get(key)
            if value is not None:
                recorded = records.decode_record(key, value, CommandRecord)
                known_crc = recorded.body_crc
        if known_crc is None:
            return False
        if known_crc != body_crc:
            text = f"command {command_id} was given before with another body"
            answer = self.error_answer(command, text, "id-reused")
        elif recorded is not None:
            answer = msgspec.convert({**recorded.answer, "repeated": True}, Answer)
            if command.command == "STOP" and answer.ok and self.record.state != answer.state:
                text = (
                    f"STOP was carried out, and the logger was started again since: it is "
                    f"{self.record.state}"
                )
                again = self.error_answer(command, text, "started-again")
                answer = msgspec.structs.replace(again, repeated=True)
        else:
            assert asked is not None
            asked.peers.add(peer)
            return True
        self._send(peer, answer)
        return True

    def pending(self, pending: Sequence[Pending]) -> list[Asked]:
        """The commands in hand that a run's record speaks of."""
        ids = [CommandId(each.session, each.number) for each in pending]
        return [self._asked[each] for each in ids if each in self._asked]

    def resume(self, pending: Pending, command: str) -> None:
        """A command of an earlier boot that is still being carried out."""
        command_id = CommandId(pending.session, pending.number)
        self._asked[command_id] = Asked(command_id, command, pending.body_crc, pending.order, set())

    # --- going out ---------------------------------------------------------------------------

    def reply(self, peer: bytes, command: Command, data: dict[str, Any]) -> None:
        """Answer at once, unrecorded: for what changes nothing."""
        self._send(peer, self.answer(command, data))

    def answer(self, command: Command | Asked, data: dict[str, Any] | None = None) -> Answer:
        session, number = _identity(command)
        return Answer(
            session=session,
            number=number,
            command=command.command,
            ok=True,
            state=str(self.record.state),
            data=data or {},
        )

    def error_answer(
        self,
        command: Command | Asked | None,
        text: str,
        code: str,
        accepts: list[str] | None = None,
    ) -> Answer:
        session, number = _identity(command) if command is not None else ("", 0)
        return Answer(
            session=session,
            number=number,
            command=command.command if command else "",
            ok=False,
            state=str(self.record.state),
            error=text[:ERROR_LETTERS_MAX],
            code=code,
            accepts=accepts or [],
        )

    def commit(
        self,
        changes: Sequence[Change],
        *,
        answers: Sequence[tuple[Asked, Answer]] = (),
        use_ballast: bool = False,
        make: Callable[[Committer], Sequence[Change]] | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Commit changes with the answers to their commands; act (`then`) and answer behind it.

        The logger's own record goes with every commit: it holds the number of the next command.
        """
        told: list[Change] = [put(records.LOGGER, self.record)]
        for asked, answer in answers:
            told += self._answer_changes(asked, answer)

        def acted() -> None:
            if then is not None:
                then()
            for asked, answer in answers:
                self._tell(asked, answer)

        self._committer.submit_made(
            lambda c: [*changes, *(make(c) if make else ()), *told],
            use_ballast=use_ballast,
            then=lambda: self._post(acted),
        )

    def refuse(self, asked: Asked, answer: Answer) -> None:
        """Record and send the refusal of a command. Raises `JournalFailed` after it was sent."""
        self._refused[asked.id] = answer
        try:
            self.commit([], answers=[(asked, answer)])
        except JournalFailed:
            self.send_refusals()
            raise

    def send_refusals_of_full_journal(self) -> None:
        """Whoever gave a command that was refused, or gives it again, need not wait for space."""
        if self._refused and self._committer.full_since_ns is not None:
            self.send_refusals()

    def send_refusals(self) -> None:
        """Send what no commit has recorded yet, to those who asked since it was sent last."""
        for command_id, answer in list(self._refused.items()):
            self._send_to_all(self._asked[command_id], answer)

    def _answer_changes(self, asked: Asked, answer: Answer) -> list[Change]:
        record = CommandRecord(
            order=asked.order,
            body_crc=asked.body_crc,
            command=asked.command,
            answer=dict(msgspec.to_builtins(answer)),
            answered_ns=self._clock.wall_ns(),
        )
        order_key = records.command_order_key(asked.order)
        key = records.command_key(asked.id)
        changes: list[Change] = [put(key, record), (order_key, key)]
        oldest = records.command_order_key(asked.order - COMMANDS_KEPT_MAX)
        forgotten = self._journal.get(oldest) if asked.order > COMMANDS_KEPT_MAX else None
        if forgotten is not None:
            changes += [(forgotten, None), (oldest, None)]
        return changes

    def _tell(self, asked: Asked, answer: Answer) -> None:
        self._asked.pop(asked.id, None)
        self._refused.pop(asked.id, None)
        self.last.append(
            CommandStatus(
                id=str(asked.id),
                command=asked.command,
                ok=answer.ok,
                error=answer.error,
                time_ns=self._clock.wall_ns(),
            )
        )
        self._send_to_all(asked, answer)

    def _send_to_all(self, asked: Asked, answer: Answer) -> None:
        """To whoever asked, once; raises the refusal of a command that the logger gave itself."""
        peers, asked.peers = asked.peers, set()
        if ITSELF in peers and answer.code == "configuration":
            # Its first line says what the error's own does.
            raise ConfigurationError([p.strip() for p in answer.error.splitlines()[1:]])
        if ITSELF in peers and not answer.ok:
            raise Error(f"{asked.command} refused: {answer.error}")
        for peer in peers - {ITSELF}:
            self._send(peer, answer)

    def _send(self, peer: bytes, answer: Answer) -> None:
        self._link.send(peer, encode_json(answer))

    def become(self, event: LoggerEvent, **fields: Any) -> None:
        state = LOGGER.next(self.record.state, event)
        if state is not self.record.state:
            self.since_ns = self._clock.wall_ns()
            log.info("logger %s", state)
        self.record = msgspec.structs.replace(self.record, state=state, **fields)


def put(key: bytes, record: Any) -> Change:
    """The change that writes a record."""
    return key, records.encode_record(key, record)


def _id_of(command: Command) -> CommandId:
    try:
        session = bytes.fromhex(command.session)
    except ValueError as error:
        text = f"session {command.session[:80]!r} is not hexadecimal"
        raise MessageError("body", text) from error
    if len(command.command) > COMMAND_NAME_LETTERS_MAX:
        raise MessageError("body", f"a command of {len(command.command)} letters")
    if not 1 <= len(session) <= 32 or not 0 <= command.number < 2**64:
        raise MessageError("body", "a session has 1 to 32 bytes, a number 64 bits")
    return CommandId(session, command.number)


def _identity(command: Command | Asked) -> tuple[str, int]:
    if isinstance(command, Command):
        return command.session, command.number
    return command.id.session.hex(), command.id.number
