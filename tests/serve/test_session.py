# SPDX-License-Identifier: Apache-2.0
"""What one client of the page may ask for, without a network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectcodec import AffectCodec
from affectcodec.serve.session import Budget, ClientError, Coder, Limits, Session, pcm_bytes
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec

FULL = {"emotion": 4, "acoustic": 4}


@pytest.fixture(scope="module")
def codec() -> AffectCodec:
    return tiny_codec()


@pytest.fixture(scope="module")
def coder(codec) -> Coder:
    return Coder(codec, Limits(live=2))


def ask(session: Session, op: str, **values: Any) -> list[Any]:
    return session.text(json.dumps({"op": op, **values}))


def pcm(frames: int, seed: int = 0) -> bytes:
    return pcm_bytes(speech_like(frames * HOP, seed).numpy())


def load(session: Session, data: bytes) -> dict[str, Any]:
    assert ask(session, "clip") == []
    (coded,) = session.binary(data)
    return coded


def test_a_clip_is_coded_and_heard_at_any_rate(coder, codec) -> None:
    session = Session(coder)
    data = pcm(10)
    coded = load(session, data)
    wav = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    tokens = coder.whole.encode(wav)
    assert coded["frames"] == tokens.num_frames
    assert coded["codes"]["emotion"] == tokens.block_codes("emotion")[0].tolist()
    for stages in (FULL, {"emotion": 1, "acoustic": 0}):
        about, audio = ask(session, "decode", stages=stages)
        want = coder.whole.decode(tokens.truncate(stages))[0, 0].numpy()
        assert audio == pcm_bytes(want) and about["samples"] == len(wav)
    _, stripped = ask(session, "decode", stages=FULL, emotion="strip")
    want = coder.whole.decode(tokens.truncate({"emotion": 0, "acoustic": 4}))[0, 0].numpy()
    assert stripped == pcm_bytes(want)


def test_the_donor_gives_its_emotion_codes(coder, codec) -> None:
    session = Session(coder)
    donor, own = pcm(6, seed=3), pcm(12)
    load(session, donor)
    ask(session, "donor")
    load(session, own)
    _, kept = ask(session, "decode", stages=FULL)
    _, swapped = ask(session, "decode", stages=FULL, emotion="swap")
    assert kept != swapped and len(kept) == len(swapped)
    ask(session, "donor")  # a clip that is its own donor stays as it is
    assert ask(session, "decode", stages=FULL, emotion="swap")[1] == kept


def test_live_audio_is_that_of_a_stream_and_slots_come_back(coder, codec) -> None:
    data = pcm(6)
    samples = np.frombuffer(data, "<i2").astype(np.int16)
    encoder, decoder = StreamingEncoder(codec, stages=2), StreamingDecoder(codec)
    want = pcm_bytes(decoder.push_frames(encoder.push_frames({0: samples}))[0])
    for _ in range(3):  # a slot that was used is at the start of a stream again
        session = Session(coder)
        (about,) = ask(session, "live", stages={"emotion": 2, "acoustic": 2})
        assert about["latency_ms"] == 40.0 and session.live
        got = b"".join(session.binary(data[i : i + 500])[0] for i in range(0, len(data), 500))
        assert got == want
        session.close()
        session.close()
    sessions = [Session(coder) for _ in range(3)]
    for session in sessions[:2]:
        ask(session, "live", stages=FULL)
    with pytest.raises(ClientError, match="in use"):
        ask(sessions[2], "live", stages=FULL)
    with pytest.raises(ClientError, match="stop live"):
        ask(sessions[0], "clip")
    with pytest.raises(ClientError, match="at most"):
        sessions[0].binary(bytes(2 * 16000 * 3))
    assert ask(sessions[0], "stop") == [{"op": "stopped"}]
    ask(sessions[2], "live", stages=FULL)
    for session in sessions:
        session.close()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 10_000, "not JSON"),
        ("[]", "'op'"),
        ('{"op": 3}', "'op'"),
        ('{"op": "rm"}', "unknown op"),
        ('{"op": "decode"}', "no clip yet"),
        ('{"op": "donor"}', "no clip yet"),
        ('{"op": "live"}', "stages"),
        ('{"op": "live", "stages": {"emotion": 1}}', "stages"),
        ('{"op": "live", "stages": {"emotion": true, "acoustic": 1}}', "integers"),
        ('{"op": "live", "stages": {"emotion": 1e0, "acoustic": 1}}', "integers"),
        ('{"op": "live", "stages": {"emotion": -1, "acoustic": 1}}', "integers"),
        ('{"op": "live", "stages": {"emotion": 0, "acoustic": 99}}', "integers"),
        ('{"op": "live", "stages": {"emotion": 0, "acoustic": 0}}', "at least one"),
    ],
)
def test_bad_requests_are_named(coder, message: str, error: str) -> None:
    with pytest.raises(ClientError, match=error):
        Session(coder).text(message)


def test_bad_samples_and_modes_are_named(coder) -> None:
    session = Session(coder)
    with pytest.raises(ClientError, match="odd"):
        session.binary(b"\0")
    with pytest.raises(ClientError, match="without a request"):
        session.binary(b"\0\0")
    for data in (b"", bytes(2 * 16000 * 60 + 2)):
        ask(session, "clip")
        with pytest.raises(ClientError, match="wanted a clip"):
            session.binary(data)
    load(session, pcm(2))
    with pytest.raises(ClientError, match="emotion"):
        ask(session, "decode", stages=FULL, emotion=["keep"])
    with pytest.raises(ClientError, match="no donor"):
        ask(session, "decode", stages=FULL, emotion="swap")
    with pytest.raises(ClientError, match="nothing is left"):
        ask(session, "decode", stages={"emotion": 1, "acoustic": 0}, emotion="strip")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
_OPS = st.sampled_from(["clip", "decode", "donor", "live", "stop", "no"])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(max_size=20)
        | st.binary(max_size=64)
        | st.builds(
            lambda op, stages, mode: json.dumps({"op": op, "stages": stages, "emotion": mode}),
            _OPS,
            _JSON | st.just(FULL),
            _JSON | st.sampled_from(["keep", "strip", "swap"]),
        ),
        max_size=12,
    )
)
def test_any_messages_are_answered_or_refused(coder, messages: list[str | bytes]) -> None:
    session = Session(coder)
    try:
        for message in messages:
            try:
                if isinstance(message, str):
                    session.text(message)
                else:
                    session.binary(message)
            except ClientError:
                pass
    finally:
        session.close()
    assert sorted(coder._free) == [0, 1]


def test_a_budget_fills_over_time() -> None:
    now = [0.0]
    budget = Budget(60.0, lambda: now[0])
    budget.take(60.0)
    with pytest.raises(ClientError, match="too much audio"):
        budget.take(0.5)
    now[0] = 0.5
    budget.take(0.5)
    now[0] = 1000.0
    with pytest.raises(ClientError):
        budget.take(60.1)
