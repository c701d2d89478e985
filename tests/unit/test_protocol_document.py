"""docs/PROTOCOL.md and docs/SENDING.md: the bytes are what the code makes, the tables name what
there is, and the examples run."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dlog.core.batch import Batch, decode_batch, encode_batch
from dlog.core.frame import MessageKind, check_frame, encode_control
from dlog.model import messages
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import Sequence, SessionId, StreamName
from tests.rig.commands import CHECKOUT
from tests.scripted_logger import ScriptedLogger

DOCS = CHECKOUT / "docs"
PROTOCOL = (DOCS / "PROTOCOL.md").read_text()
EVENT_LINK = PROTOCOL[PROTOCOL.index("## Event link") : PROTOCOL.index("## COOR link")]
SESSION = SessionId(bytes(range(16)))


def hex_blocks() -> list[bytes]:
    found = re.findall(r"^```hex\n(.*?)^```$", EVENT_LINK, re.MULTILINE | re.DOTALL)
    return [
        b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block.splitlines())
        for block in found
    ]


def test_the_bytes_are_what_the_code_makes() -> None:
    hello = messages.Hello(
        session=SESSION, name="demo", host="h", process=1, lowest=1, position_bytes=0
    )
    table = np.array([(42, 0, 7, 5, 1, 0)], EVENT_DTYPE)
    payload = np.frombuffer(b"hello", np.uint8)
    batch = Batch(SESSION, Sequence(1), 0, 0, (StreamName("photons"),), table, payload, 0)
    said, sent = hex_blocks()
    assert said == encode_control(MessageKind.HELLO, messages.encode_body(hello))
    assert sent == encode_batch(batch)
    assert check_frame(memoryview(said), 1000) == MessageKind.HELLO
    assert decode_batch(memoryview(sent)).message_bytes == len(sent)


@pytest.mark.parametrize(
    "kind",
    [
        messages.Hello, messages.Heartbeat, messages.EndOfRun, messages.Bye, messages.Welcome,
        messages.Acknowledgement, messages.RefusedRange, messages.Resend, messages.Refused,
        messages.ByeDone, messages.RunStreams, messages.DivertedEvents,
    ],
)  # fmt: skip
def test_every_field_is_named(kind: type[msgspec.Struct]) -> None:
    for field in kind.__struct_fields__:
        assert f"`{field}`" in EVENT_LINK, f"{kind.__name__}.{field}"


def test_every_kind_is_in_its_table() -> None:
    for kind in MessageKind:
        name = "batch" if kind is MessageKind.EVENTS else kind.name.replace("_", "-")
        assert f"| {kind.value} | {name} |" in EVENT_LINK


# --- SENDING ------------------------------------------------------------------------------------

SENDING = (DOCS / "SENDING.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", SENDING, re.MULTILINE | re.DOTALL)


def test_the_examples_of_sending_run_one_behind_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = ScriptedLogger()
    logger.model.active = {7, 8}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "logger.json").write_text(f'{{"event_address": "{logger.address}"}}')
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(EXAMPLES) >= 6
    for example in EXAMPLES:
        exec(compile(example, str(DOCS / "SENDING.md"), "exec"), names)
        # The model keeps one session; the next example begins another.
        logger.do(logger.model.forget_session)
    logger.close()
    assert logger.stored[7, "photons"]
