"""Liveness and readiness over HTTP, for the kubelet."""

from aiohttp import web

from quiesce.control.lease import Leadership
from quiesce.control.operator import Operator

PORT = 8080


async def serve_health(operator: Operator, port: int, leadership: Leadership | None) -> web.AppRunner:
    """`/livez` fails if the loop is stuck, `/readyz` until everything has been listed for the first time.

    An operator that waits for the Lease counts as ready: it is ready to take over.
    """

    async def livez(_: web.Request) -> web.Response:
        stale = operator.stale_for()
        if stale:
            return web.Response(status=503, text=f"the loop is {stale:.0f} s behind\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if operator.ready:
            return web.Response(text="ok\n")
        if leadership and leadership.waits_for:
            return web.Response(text=f"waiting for {leadership.waits_for}\n")
        return web.Response(status=503, text="starting\n")

    application = web.Application()
    application.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
