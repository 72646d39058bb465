"""An HTTP proxy in the server's pod: it keeps connections of its own with clients, for at most MAX_AGE seconds.

Runs in the operator's image, which has Python and aiohttp.
"""

import os
import time
import weakref

import aiohttp
from aiohttp import web

SERVER = "http://127.0.0.1:8080"
PORT = 8888
MAX_AGE_SECONDS = float(os.environ["MAX_AGE"])


async def serve() -> web.Application:
    session = aiohttp.ClientSession()
    since: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()

    async def forward(request: web.Request) -> web.Response:
        began = since.setdefault(request.protocol, time.monotonic())
        async with session.get(f"{SERVER}{request.path_qs}") as answer:
            response = web.Response(status=answer.status, body=await answer.read())
        if time.monotonic() - began > MAX_AGE_SECONDS:
            response.force_close()
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", forward)
    return application


if __name__ == "__main__":
    web.run_app(serve(), port=PORT, access_log=None)
