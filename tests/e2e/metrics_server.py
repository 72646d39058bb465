"""An external.metrics.k8s.io API with one metric, whose value is what was PUT to /value last. Runs in a pod."""

import ssl
from datetime import UTC, datetime

from aiohttp import web

API = "/apis/external.metrics.k8s.io/v1beta1"
METRIC = {"name": "queue", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
value = web.AppKey("value", list[str])


async def discover(_: web.Request) -> web.Response:
    group = "external.metrics.k8s.io/v1beta1"
    return web.json_response(
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": [METRIC]}
    )


async def read(request: web.Request) -> web.Response:
    timestamp = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    item = {"metricName": "queue", "metricLabels": {}, "timestamp": timestamp, "value": request.app[value][-1]}
    kind = {"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {}}
    return web.json_response({**kind, "items": [item]})


async def write(request: web.Request) -> web.Response:
    request.app[value].append(await request.text())
    return web.Response()


def main() -> None:
    app = web.Application()
    app[value] = ["30"]
    app.add_routes(
        [web.get(API, discover), web.get(API + "/namespaces/{namespace}/queue", read), web.put("/value", write)]
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/app/tls.crt", "/app/tls.key")
    web.run_app(app, port=8443, ssl_context=context, print=None)


if __name__ == "__main__":
    main()
