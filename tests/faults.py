"""Servers whose admin endpoint misbehaves when it is told to: the operator reaches it by way of a proxy in the pod."""

from collections import Counter
from typing import Any

from tests.estate import API_VERSION, Estate, Manifest, kubectl, server_spec

ADMIN_PORT, CONTROL_PORT = 9991, 9992
# Ends the server's own process, as the kernel would that has no memory left; not the shell that looks for it.
KILL_SERVER = "for p in /proc/[0-9]*; do grep -qs '[j]boss-modules' $p/cmdline && kill -9 ${p#/proc/}; done; true"
# What add-user.sh writes, put in the place of what is there.
SET_PASSWORD = """
digest=$(printf '%s:ManagementRealm:%s' "$1" "$2" | md5sum | cut -d ' ' -f 1)
sed -i "s/^$1=.*/$1=$digest/" "$JBOSS_HOME/standalone/configuration/mgmt-users.properties"
"""


def faulty_spec(**spec: Any) -> Manifest:
    """An AppServer's spec with the proxy as its admin endpoint; the kubelet still probes the server itself."""
    changed = server_spec(**{"port": "proxy", "suspendTimeoutSeconds": 10, **spec})
    (container,) = changed["template"]["spec"]["containers"]
    container["env"] = [{"name": "QUIESCE_FAULTY_PROXY", "value": "yes"}]
    container["ports"].append({"name": "proxy", "containerPort": ADMIN_PORT})
    return changed


def faulty_group(estate: Estate, name: str, replicas: int = 3, **spec: Any) -> None:
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": faulty_spec(**spec)}
    estate.apply(API_VERSION, "ServerGroup", name, spec={"replicas": replicas, "template": template})


def misbehave(estate: Estate, pod: str, fault: str) -> None:
    """`none` ends it; the proxy's source has the others."""
    answer = estate.api.post(version="v1", namespace=estate.namespace, url=_control(pod, fault), timeout=10)
    answer.raise_for_status()


def asked(estate: Estate, pod: str) -> Counter[str]:
    """How often each operation was asked of the admin endpoint since the container started."""
    answer = estate.api.get(version="v1", namespace=estate.namespace, url=_control(pod, ""), timeout=10)
    answer.raise_for_status()
    return Counter({name: int(count) for name, count in map(str.split, answer.text.splitlines())})


def kill_server(estate: Estate, pod: str) -> None:
    _shell(estate, pod, KILL_SERVER)


def set_password(estate: Estate, pod: str, username: str, password: str) -> None:
    _shell(estate, pod, SET_PASSWORD, username, password)


def _control(pod: str, path: str) -> str:
    return f"pods/{pod}:{CONTROL_PORT}/proxy/{path}"


def _shell(estate: Estate, pod: str, script: str, *arguments: str) -> None:
    kubectl("-n", estate.namespace, "exec", pod, "-c", "wildfly", "--", "sh", "-c", script, "sh", *arguments)
