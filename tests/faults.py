"""Servers whose admin endpoint misbehaves on request: the operator reaches it through a proxy in the pod.

And what has to hold no matter what fails around a group (`under_load`).
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

from tests.cluster.load import CLIENTS, Load, service_url
from tests.estate import QUICK_START, Estate, Watcher

CONTROL_PORT = 9992
BEHIND_PROXY = {
    "env": [QUICK_START, {"name": "QUIESCE_FAULTY_PROXY", "value": "yes"}],
    "ports": [
        {"name": "http", "containerPort": 8080},
        {"name": "management", "containerPort": 9990},  # the kubelet's probe goes there
        {"name": "proxy", "containerPort": 9991},
    ],
}
# Ends the server's own process, like an OOM kill; not the shell that looks for it.
KILL_SERVER = "for p in /proc/[0-9]*; do grep -qs '[j]boss-modules' $p/cmdline && kill -9 ${p#/proc/}; done; true"
# Replaces what add-user.sh has written.
SET_PASSWORD = """
digest=$(printf '%s:ManagementRealm:%s' "$1" "$2" | md5sum | cut -d ' ' -f 1)
sed -i "s/^$1=.*/$1=$digest/" "$JBOSS_HOME/standalone/configuration/mgmt-users.properties"
"""


def misbehave(estate: Estate, pod: str, fault: str) -> None:
    """`none` ends it; the proxy's source has the others."""
    answer = estate.api.post(version="v1", namespace=estate.namespace, url=_control(pod, fault), timeout=10)
    answer.raise_for_status()


def asked(estate: Estate, pod: str) -> Counter[str]:
    """How often each operation was requested at the admin endpoint since the container started."""
    answer = estate.api.get(version="v1", namespace=estate.namespace, url=_control(pod, ""), timeout=10)
    answer.raise_for_status()
    return Counter({name: int(count) for name, count in map(str.split, answer.text.splitlines())})


def kill_server(estate: Estate, pod: str) -> None:
    try:
        _shell(estate, pod, KILL_SERVER)
    except AssertionError as error:
        if "exit code 137" not in str(error):  # the shell has ended with the container
            raise


def set_password(estate: Estate, pod: str, username: str, password: str) -> None:
    _shell(estate, pod, SET_PASSWORD, username, password)


@contextlib.contextmanager
def under_load(estate: Estate, *, least: int = 2, warned: bool = True) -> Iterator[None]:
    """Load on `shop` while something goes wrong: it ends whole, `least` servers always served, no request failed.

    `warned` is false for a server that can't be made to close its connections: requests on those may fail.
    """
    estate.wait_ready("shop")
    with Load(estate.namespace, service_url(estate.namespace, "shop")) as load:
        time.sleep(3)  # kept-alive connections to every server
        with Watcher(lambda: len(estate.endpoints())) as serving:
            yield
            estate.wait_ready("shop", timeout=180)
        time.sleep(2)  # a new server's errors show in its first seconds
        load.stop()
    kinds = load.result().kinds
    failures = {name: kind.failures for name, kind in kinds.items() if warned or not CLIENTS[name].reuse}
    assert not any(failures.values()), load.result()
    assert min(serving.seen) >= least, serving.seen
    assert {server: estate.says(server) for server in estate.pods()} == dict.fromkeys(estate.pods(), "RUNNING")


def _control(pod: str, path: str) -> str:
    return f"pods/{pod}:{CONTROL_PORT}/proxy/{path}"


def _shell(estate: Estate, pod: str, script: str, *arguments: str) -> None:
    estate.kubectl("exec", pod, "-c", "wildfly", "--", "sh", "-c", script, "sh", *arguments)
