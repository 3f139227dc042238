# SPDX-License-Identifier: Apache-2.0
"""The server of the page: whom it answers, what it refuses, and many clients at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

pytest.importorskip("aiohttp")

from aiohttp import ClientWebSocketResponse, TCPConnector, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from affectcodec.serve.app import CLIENTS, make_app
from affectcodec.serve.session import MAX_CLIP_SECONDS, Coder, Limits, pcm_bytes
from tests.codec_fixtures import HOP, speech_like, tiny_codec

FULL = {"emotion": 4, "acoustic": 4}
Visit = Callable[[TestClient], Awaitable[None]]


@pytest.fixture(scope="module")
def coder() -> Coder:
    return Coder(tiny_codec(), Limits())


def visit(coder: Coder, body: Visit) -> None:
    """Run ``body`` with a client of a server; afterwards no client is left and no slot taken."""

    async def run() -> None:
        app = make_app(coder)
        # By itself a client opens 100 connections and lets the next one wait.
        async with TestClient(TestServer(app), connector=TCPConnector(limit=0)) as client:
            await body(client)
            for _ in range(200):
                if not app[CLIENTS]:
                    break
                await asyncio.sleep(0.02)
            assert not app[CLIENTS]
        assert sorted(coder._free) == list(range(coder.limits.live))

    asyncio.run(asyncio.wait_for(run(), 240))


async def hello(client: TestClient, **headers: str) -> ClientWebSocketResponse:
    socket = await client.ws_connect("/talk", headers=headers, max_msg_size=0)
    assert (await socket.receive_json())["op"] == "hello"
    return socket


async def code_a_clip(socket: ClientWebSocketResponse, data: bytes) -> bytes:
    await socket.send_json({"op": "clip"})
    await socket.send_bytes(data)
    assert (await socket.receive_json())["op"] == "coded"
    await socket.send_json({"op": "decode", "stages": FULL})
    assert (await socket.receive_json())["op"] == "audio"
    return await socket.receive_bytes()


def pcm(frames: int, seed: int = 0) -> bytes:
    return pcm_bytes(speech_like(frames * HOP, seed).numpy())


def decoded(coder: Coder, data: bytes) -> bytes:
    wav = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return pcm_bytes(coder.whole.decode(coder.whole.encode(wav))[0, 0].numpy())


def test_the_page_and_its_headers(coder) -> None:
    async def body(client: TestClient) -> None:
        for path, kind in (
            ("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")
        ):  # fmt: skip
            answer = await client.get(path)
            assert answer.status == 200 and answer.content_type == kind
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"

    visit(coder, body)


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/%2e%2e/pyproject.toml", "/etc/passwd", "/app.js/x", "/talkx"]
)
def test_nothing_else_is_served(coder, path: str) -> None:
    async def body(client: TestClient) -> None:
        answer = await client.get(path)
        assert answer.status == 404
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert (await client.post("/", data=b"x" * 5000)).status == 405

    visit(coder, body)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example"},
        {"Host": ""},
        {"Host": "["},
        {"Host": "localhost.elsewhere.example"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.elsewhere.example"},
        {"Origin": "http://["},
    ],
)
def test_other_names_and_pages_of_others_are_refused(coder, headers: dict[str, str]) -> None:
    async def body(client: TestClient) -> None:
        answer = await client.get("/", headers=headers)
        assert answer.status == 403
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/talk", headers=headers)
        assert refused.value.status == 403
        await (await hello(client)).close()

    visit(coder, body)


def test_its_own_names_are_welcome(coder) -> None:
    async def body(client: TestClient) -> None:
        port = client.port
        for host in ("127.0.0.1", "localhost", "[::1]"):
            name = f"{host}:{port}"
            await (await hello(client, Host=name, Origin=f"http://{name}")).close()

    visit(coder, body)


def test_malformed_messages_leave_the_connection_and_the_server(coder) -> None:
    data = pcm(4)
    bad: list[str | bytes] = [
        "", "{", "[]", "null", '{"op": 1}', '{"op": "decode", "stages": {}}', "\ud7ff" * 100,
        "[" * 50_000, "1" * 50_000, b"", b"\0", b"\0" * 4096, '{"op": "live", "stages": "all"}',
    ]  # fmt: skip

    async def body(client: TestClient) -> None:
        socket = await hello(client)
        for message in bad:
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)
            answer = await socket.receive_json(timeout=20)
            assert answer["op"] == "error" and answer["text"]
        assert await code_a_clip(socket, data) == decoded(coder, data)
        for _ in range(coder.limits.errors - len(bad)):
            await socket.send_str("{")
            assert (await socket.receive_json())["op"] == "error"
        closed = await socket.receive(timeout=20)
        assert closed.type == WSMsgType.CLOSE and closed.data == 1008

    visit(coder, body)


def test_a_text_message_that_is_no_text(coder) -> None:
    async def body(client: TestClient) -> None:
        socket = await hello(client)
        await socket._writer.send_frame(b"\xff\xfe{", WSMsgType.TEXT)  # type: ignore[union-attr]
        closed = await socket.receive(timeout=20)
        assert closed.type == WSMsgType.CLOSE and closed.data == 1007
        await (await hello(client)).close()

    visit(coder, body)


def test_an_upload_too_large_ends_its_connection_alone(coder) -> None:
    rate = coder.codec.config.sample_rate
    data = pcm(4)

    async def body(client: TestClient) -> None:
        bystander, socket = await hello(client), await hello(client)
        await socket.send_json({"op": "clip"})
        await socket.send_bytes(bytes(2 * rate * (MAX_CLIP_SECONDS + 1)))
        closed = await socket.receive(timeout=20)
        assert closed.type == WSMsgType.CLOSE and closed.data == 1009
        # What fits the message but not the clip is refused by name.
        socket = await hello(client)
        await socket.send_json({"op": "clip"})
        await socket.send_bytes(bytes(2 * rate * MAX_CLIP_SECONDS + 2))
        assert "at most 60 s" in (await socket.receive_json())["text"]
        assert await code_a_clip(bystander, data) == decoded(coder, data)
        await socket.close()
        await bystander.close()

    visit(coder, body)


def test_a_client_that_asks_for_too_much_waits() -> None:
    coder = Coder(tiny_codec(), Limits(audio_seconds_a_minute=1.0))

    async def body(client: TestClient) -> None:
        socket = await hello(client)
        await socket.send_json({"op": "clip"})
        await socket.send_bytes(bytes(2 * 16000 * 2))
        assert "too much audio" in (await socket.receive_json())["text"]
        await socket.close()

    visit(coder, body)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_100_clients_at_a_time_and_then_no_more(coder) -> None:
    clips = [pcm(3 + i % 5, seed=i) for i in range(100)]
    want = [decoded(coder, data) for data in clips]

    async def body(client: TestClient) -> None:
        sockets = await asyncio.gather(*(hello(client) for _ in range(100)))
        live = sockets[: coder.limits.live]
        got = await asyncio.gather(*map(code_a_clip, sockets, clips))
        assert list(got) == want

        async def talk(socket: ClientWebSocketResponse, data: bytes) -> int:
            await socket.send_json({"op": "live", "stages": FULL})
            assert (await socket.receive_json())["op"] == "live"
            size = 0
            for at in range(0, len(data), 700):
                await socket.send_bytes(data[at : at + 700])
                size += len(await socket.receive_bytes())
            return size

        heard = await asyncio.gather(*(talk(s, d) for s, d in zip(live, clips, strict=False)))
        assert heard == [len(data) for data in clips[: len(live)]]
        await sockets[-1].send_json({"op": "live", "stages": FULL})
        assert "in use" in (await sockets[-1].receive_json())["text"]
        more = [await hello(client) for _ in range(coder.limits.clients - 100)]
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/talk")
        assert refused.value.status == 503
        # Some leave without a word.
        for socket in sockets[:50]:
            socket._response.close()
        for socket in [*sockets[50:], *more]:
            await socket.close()

    visit(coder, body)


def test_a_failure_inside_is_told_and_survived(coder, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    async def body(client: TestClient) -> None:
        socket = await hello(client)
        with monkeypatch.context() as patch:
            patch.setattr(coder.whole, "encode", fail)
            await socket.send_json({"op": "clip"})
            await socket.send_bytes(pcm(2))
            answer = await socket.receive_json()
        assert answer["op"] == "error" and "secret" not in json.dumps(answer)
        assert await code_a_clip(socket, pcm(2)) == decoded(coder, pcm(2))
        await socket.close()

    visit(coder, body)
