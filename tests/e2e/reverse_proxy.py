"""An HTTP proxy in the server's pod, with connections of its own to clients.

`/max-age?seconds=N` has it close each of them with the first response after N seconds. It runs in the operator's image,
which has Python and aiohttp.
"""

import math
import time
import weakref

import aiohttp
from aiohttp import web

SERVER = "http://127.0.0.1:8080"
PORT = 8888


class Proxy:
    def __init__(self) -> None:
        self.max_age = math.inf
        self._since: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()

    async def forward(self, request: web.Request) -> web.Response:
        began = self._since.setdefault(request.transport, time.monotonic())
        async with self._session.get(f"{SERVER}{request.path_qs}") as answer:
            response = web.Response(status=answer.status, body=await answer.read())
        if time.monotonic() - began > self.max_age:
            response.force_close()
        return response

    async def set_max_age(self, request: web.Request) -> web.Response:
        self.max_age = float(request.query["seconds"])
        return web.Response()

    async def application(self) -> web.Application:
        self._session = aiohttp.ClientSession()
        application = web.Application()
        application.router.add_get("/max-age", self.set_max_age)
        application.router.add_get("/{path:.*}", self.forward)
        return application


if __name__ == "__main__":
    web.run_app(Proxy().application(), port=PORT, access_log=None)
