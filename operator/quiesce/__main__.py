"""`python -m quiesce`: the operator's process."""

import argparse
import asyncio
import logging
import os
import socket

import kopf

from quiesce.cluster.kube import KubeCluster
from quiesce.control.health import PORT, serve_health
from quiesce.control.operator import Operator
from quiesce.handlers import registry, settings


async def run(health_port: int) -> None:
    cluster = await KubeCluster.connect()
    instance = os.environ.get("POD_NAME") or socket.gethostname()
    operator = Operator(cluster, instance)
    health = await serve_health(operator, health_port)
    loop: asyncio.Task[None] | None = None
    try:
        await operator.prime()
        # Before kopf: when it ends, it waits for every task that began after it.
        loop = asyncio.create_task(operator.run())
        watches = asyncio.create_task(
            kopf.operator(
                registry=registry(operator),
                settings=settings(),
                identity=instance,  # type: ignore[arg-type]  # else kopf looks for a user name, which an image need not have
                clusterwide=True,
                standalone=True,
            )
        )
        # kopf ends by itself on SIGTERM. Whatever else ends first ends the process with an error, and its successor
        # starts from what is in the cluster.
        done, _ = await asyncio.wait({loop, watches}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if loop in done:
            raise RuntimeError("the loop has ended")
    finally:
        if loop:
            loop.cancel()
            await asyncio.wait({loop})
        await health.cleanup()
        await cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="quiesce", description="Stops, drains and rolls application servers.")
    parser.add_argument("--health-port", type=int, default=PORT, help="for /livez and /readyz (default: %(default)s)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asyncio.run(run(arguments.health_port))


if __name__ == "__main__":
    main()
