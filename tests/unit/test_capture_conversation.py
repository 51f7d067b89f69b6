"""From records to a conversation and its replay: the rules one by one, and whatever a stranger's file may hold."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.conversation import conversation, verdict
from agent.capture.pcap import pcap
from agent.capture.records import CONTENT_BYTES_MAX, Record, joined
from agent.capture.replaying import Replay, renumbered
from agent.capture.told import lines, merged, served, span_s
from protocols.field.contract import Happening
from protocols.field.modbus_server import Asked, Reply, mbap_frames, rtu_frames

ASK = bytes.fromhex("010300000001")  # unit 1, one holding register
H = Happening
MS = 1000


def mbap(transaction: int, body: bytes) -> bytes:
    return struct.pack(">HHH", transaction, 0, len(body)) + body


def told(value: int) -> bytes:
    return bytes([1, 3, 2]) + value.to_bytes(2, "big")


def talk(*happened: tuple[int, Happening, bytes]) -> Replay:
    """A replay of what happened at these milliseconds."""
    records = [Record(happening, at * MS, content) for at, happening, content in happened]
    return Replay(conversation(records, "tcp"), "tcp", 1)


def ask(replay: Replay, transaction: int, body: bytes = ASK) -> Reply:
    return replay.answer(Asked(body[0], body[1:], transaction))


def test_pieces_keep_their_delays_and_get_the_new_transaction() -> None:
    answer = mbap(5, told(7))
    replay = talk(
        (0, H.OPENED, b""), (10, H.SENT, mbap(5, ASK)), (13, H.RECEIVED, answer[:1]), (20, H.RECEIVED, answer[1:])
    )
    reply = ask(replay, 900)
    assert [piece.delay_s for piece in reply.pieces] == [0.003, 0.010]
    assert b"".join(piece.content for piece in reply.pieces) == mbap(900, told(7))
    assert reply.hangs_up_s is None


def test_a_question_gets_its_answers_in_turn() -> None:
    happened = [(0, H.OPENED, b"")]
    for at in (1, 2, 3):
        happened += [(at, H.SENT, mbap(at, ASK)), (at, H.RECEIVED, mbap(at, told(at)))]
    replay = talk(*happened)
    assert [ask(replay, 1).pieces[0].content[-1] for _ in range(5)] == [1, 2, 3, 1, 2]


def test_silence_hanging_up_and_absence() -> None:
    replay = talk(
        *((0, H.OPENED, b""), (1, H.SENT, mbap(1, ASK)), (500, H.TIMED_OUT, b""), (500, H.CLOSED, b"given up")),
        *((900, H.OPENED, b""), (901, H.SENT, mbap(2, ASK)), (910, H.LOST, b"")),
        *((950, H.NOT_OPENED, b"refused"), (2000, H.NOT_OPENED, b"refused"), (3910, H.OPENED, b"")),
        *((4000, H.SENT, mbap(3, ASK)), (4001, H.TIMED_OUT, b""), (4001, H.CLOSED, b"")),
        *((4100, H.NOT_OPENED, b""), (5001, H.OPENED, b"")),
    )
    assert ask(replay, 1) == Reply([])
    assert ask(replay, 1) == Reply([], 0.009, 3.0)
    assert ask(replay, 1) == Reply([], 0.001, 1.0), "it left without hanging up first"


def test_an_answer_that_nobody_waited_for_is_not_taken_for_silence() -> None:
    replay = talk(
        (0, H.OPENED, b""), (1, H.SENT, mbap(1, ASK)), (1, H.RECEIVED, mbap(1, told(4))), (2, H.SENT, mbap(2, ASK))
    )
    assert [ask(replay, 1).pieces[0].content[-1] for _ in range(2)] == [4, 4]
    replay = talk((0, H.OPENED, b""), (1, H.SENT, mbap(1, ASK)), (2, H.CLOSED, b"given up"))
    assert ask(replay, 1).pieces[0].content == mbap(1, bytes([1, 0x83, 2]))
    assert replay.unknown == 1


def test_what_comes_unasked_is_a_greeting() -> None:
    replay = talk((0, H.OPENED, b""), (4, H.RECEIVED, b"hello"), (9, H.OPENED, b""), (9, H.LOST, b""))
    assert [piece.content for piece in replay.greet().pieces] == [b"hello"]
    assert replay.greet().hangs_up_s == 0
    assert [piece.content for piece in replay.greet().pieces] == [b"hello"]


def test_answers_of_several_requests_at_once_go_to_theirs() -> None:
    two, other = mbap(1, ASK) + mbap(2, bytes.fromhex("010300050001")), bytes.fromhex("010300050001")
    both = mbap(2, told(22)) + mbap(1, told(11))
    replay = talk((0, H.OPENED, b""), (1, H.SENT, two), (2, H.RECEIVED, both[:5]), (3, H.RECEIVED, both[5:]))
    assert b"".join(piece.content for piece in ask(replay, 8).pieces) == mbap(8, told(11))
    assert b"".join(piece.content for piece in ask(replay, 9, other).pieces) == mbap(9, told(22))


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (mbap(5, told(1)), "answered"),
        (mbap(5, b"\x01\x83\x0b"), "exception 11"),
        (mbap(5, told(1))[:-1], "cut short"),
        (mbap(6, told(1)), "it answered transaction 6 instead of 5"),
        (mbap(5, told(1)) * 2, "answered, and more behind it"),
        (b"HTTP/1.1 400", "what it sent is not Modbus TCP (protocol id 21584 instead of 0)"),
        (b"", "silent"),
    ],
)
def test_what_a_reply_was(reply: bytes, word: str) -> None:
    happened = [Record(H.SENT, 0, mbap(5, ASK)), Record(H.RECEIVED, 1, reply), Record(H.TIMED_OUT, 2, b"")]
    ((exchange,),) = conversation([one for one in happened if one.content or reply == b""], "tcp").exchanges.values()
    exchange.pieces = [piece for piece in exchange.pieces if piece[1]]
    assert verdict(exchange) == word
    if reply[:4] == mbap(6, told(1))[:4]:
        assert renumbered([reply], 5, 70)[0][:2] == (71).to_bytes(2, "big"), "it stays as wrong as it was"
    if reply.startswith(b"HTTP"):
        assert renumbered([reply], 5, 70) == [reply]


def test_ranges_are_merged() -> None:
    assert merged([(5, 6), (0, 3), (4, 4), (9, 9), (9, 12)]) == [(0, 6), (9, 12)]


FRAMES = st.sampled_from(
    [
        *(mbap(number, ASK) for number in (0, 1, 65_535)),
        mbap(1, bytes.fromhex("01010000ffff")),
        mbap(1, bytes.fromhex("01100000000204ffffffff")),
        mbap(2, told(3)),
        mbap(1, b"\x01\x83"),
        bytes.fromhex("010300000001840a"),
        b"\0" * 12,
        bytes(CONTENT_BYTES_MAX),
    ]
)
CONTENT = st.lists(FRAMES | st.binary(max_size=20), max_size=3).map(lambda parts: b"".join(parts)[:CONTENT_BYTES_MAX])
RECORDS = st.lists(
    st.builds(Record, st.sampled_from([*Happening]), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), CONTENT),
    max_size=40,
)


@given(RECORDS, st.sampled_from(["tcp", "rtu", "udp", "rtu_over_tcp"]), st.lists(CONTENT, max_size=6))
def test_no_recording_harms_who_serves_it(records: list[Record], transport: str, asked: list[bytes]) -> None:
    found = conversation(joined(records), transport)
    span_s(records)
    assert sum(row.asked for row in served(found)) == found.count
    assert len(list(lines(records))) == len(records)
    assert len(b"".join(pcap(records, transport, 502))) >= 24
    serves = "rtu_over_tcp" if found.is_rtu else "udp" if transport == "udp" else "tcp"
    replay = Replay(found, serves, 1)  # type: ignore[arg-type]  # one of the three
    questions = [Asked(unit_id, pdu, 9) for unit_id, pdu in found.exchanges] + [
        Asked(1, content, 0) for content in asked
    ]
    for question in questions * 2:
        reply = replay.answer(question)
        assert all(piece.delay_s >= 0 for piece in reply.pieces)
        assert reply.away_s >= 0
    replay.greet()


@given(st.lists(CONTENT, max_size=8), st.booleans())
def test_requests_are_the_same_however_they_are_cut(parts: list[bytes], is_rtu: bool) -> None:
    frames = [mbap(at, ASK) for at, _ in enumerate(parts)] if not is_rtu else [bytes.fromhex("010300000001840a")] * 3
    whole, buffer, found = b"".join(frames), b"", []
    cut = rtu_frames if is_rtu else mbap_frames
    for at in range(0, len(whole), 5):
        some, buffer = cut(buffer + whole[at : at + 5])
        found += some
    assert (found, buffer) == (cut(whole)[0], b"")
    assert len(found) == len(frames)
