# SPDX-License-Identifier: Apache-2.0
"""The web server of the page: three files and one WebSocket, for this machine alone by default.

It reads nothing from disk on behalf of a client, and answers only to its own names: a page of
another site cannot talk to it, neither directly (Origin) nor by a name that it makes resolve to
this machine (Host).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from affectcodec.serve.page import PAGE, SCRIPT, STYLE
from affectcodec.serve.session import MAX_CLIP_SECONDS, ClientError, Coder, Reply, Session

LOG = logging.getLogger("affectcodec.serve")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src blob:; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_IDLE_SECONDS = 20.0

CODER = web.AppKey("coder", Coder)
HOSTS = web.AppKey("hosts", tuple[str, ...])
# Live coding has a thread of its own: it waits for no clip.
CLIP_THREAD = web.AppKey("clip_thread", ThreadPoolExecutor)
LIVE_THREAD = web.AppKey("live_thread", ThreadPoolExecutor)
CLIENTS = web.AppKey("clients", set[Session])


def _host_of(value: str) -> str:
    return urlsplit(f"//{value}").hostname or ""


@web.middleware
async def _guard(request: web.Request, handler):  # type: ignore[no-untyped-def]
    """Own names only, and the headers of every answer."""
    hosts = request.app[HOSTS]
    try:
        host = _host_of(request.headers.get("Host", ""))
        origin = request.headers.get("Origin")
        foreign = origin is not None and _host_of(urlsplit(origin).netloc) not in hosts
    except ValueError:
        host, foreign = "", True
    try:
        if hosts and (host not in hosts or foreign):
            raise web.HTTPForbidden(text="this server answers to its own page only")
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    if not response.prepared:
        response.headers.update(_HEADERS)
    return response


def _file(text: str, kind: str):  # type: ignore[no-untyped-def]
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return answer


async def _send(socket: web.WebSocketResponse, replies: list[Reply]) -> None:
    for reply in replies:
        if isinstance(reply, bytes):
            await socket.send_bytes(reply)
        else:
            await socket.send_json(reply)


async def _talk(request: web.Request) -> web.WebSocketResponse:
    """One client, message after message; each is computed in a thread."""
    app = request.app
    coder, clients = app[CODER], app[CLIENTS]
    if len(clients) >= coder.limits.clients:
        raise web.HTTPServiceUnavailable(text="too many clients")
    # A clip and room for its frame: anything larger ends the connection before it is stored.
    size = 2 * MAX_CLIP_SECONDS * coder.codec.config.sample_rate + 4096
    socket = web.WebSocketResponse(max_msg_size=size, heartbeat=_IDLE_SECONDS, compress=False)
    session = Session(coder)
    clients.add(session)
    errors = 0
    loop = asyncio.get_running_loop()

    def thread() -> ThreadPoolExecutor:
        return app[LIVE_THREAD if session.live else CLIP_THREAD]

    try:
        await socket.prepare(request)
        config = coder.codec.config
        await socket.send_json(
            {
                "op": "hello",
                "sample_rate": config.sample_rate,
                "hop": config.hop_length,
                "stages": config.quantizer.num_stages,
                "bits": {b.name: b.bits for b in config.quantizer.blocks},
                "max_seconds": MAX_CLIP_SECONDS,
            }
        )
        async for message in socket:
            try:
                if message.type == WSMsgType.TEXT:
                    replies = await loop.run_in_executor(thread(), session.text, message.data)
                elif message.type == WSMsgType.BINARY:
                    replies = await loop.run_in_executor(thread(), session.binary, message.data)
                else:
                    break
                await _send(socket, replies)
            except ClientError as error:
                errors += 1
                await socket.send_json({"op": "error", "text": str(error)})
                if errors >= coder.limits.errors:
                    await socket.close(code=1008, message=b"too many errors")
                    break
            except ConnectionError:
                break
            except Exception:
                LOG.exception("a request failed")
                await socket.send_json({"op": "error", "text": "the server failed on this"})
    finally:
        clients.discard(session)
        await asyncio.shield(loop.run_in_executor(app[LIVE_THREAD], session.close))
    return socket


def make_app(coder: Coder, hosts: tuple[str, ...] = LOOPBACK) -> web.Application:
    """The application.

    Args:
        coder: what computes for all clients.
        hosts: names that requests may use; empty for any.
    """
    app = web.Application(middlewares=[_guard], client_max_size=1024)
    app[CODER], app[HOSTS], app[CLIENTS] = coder, hosts, set()
    app[CLIP_THREAD] = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clips")
    app[LIVE_THREAD] = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live")
    app.router.add_get("/", _file(PAGE, "text/html"))
    app.router.add_get("/app.js", _file(SCRIPT, "text/javascript"))
    app.router.add_get("/style.css", _file(STYLE, "text/css"))
    app.router.add_get("/talk", _talk)

    async def stop(app: web.Application) -> None:
        for key in (CLIP_THREAD, LIVE_THREAD):
            app[key].shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(stop)
    return app


def serve(coder: Coder, host: str, port: int, hosts: tuple[str, ...], ready) -> None:  # type: ignore[no-untyped-def]
    """Serve until interrupted; ``ready(port)`` is called once the socket listens."""

    async def run() -> None:
        runner = web.AppRunner(make_app(coder, hosts), access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            ready(runner.addresses[0][1])
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
