"""Probes that fail while a server is suspended: the kubelet would restart it repeatedly.

Only what is certain from the template is reported. What a suspended WildFly answers at its management interface is
known; every other HTTP port of its container is assumed to be the application's, where it answers 503.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from quiesce.decide.derived import derived
from quiesce.decide.podspec import SHELL, SHELL_WORDS, BadTemplateError, admin_container
from quiesce.model.resources import AppServerSpec

PROBES = ("livenessProbe", "startupProbe")
# WildFly's own management ports, plain and TLS: the admin port of the spec may be either.
MANAGEMENT_PORTS = (9990, 9993)
# MicroProfile Health: these two include the readiness checks, which are down while the server is suspended.
FAILING_PATHS = ("/health", "/health/ready")
DEFAULT_PORTS = {"http": 80, "https": 443}
LOCAL_URL = re.compile(r"((?P<scheme>https?)://)?(localhost|127\.0\.0\.1|\[::1\])(:(?P<port>[0-9]+))?(?P<path>/.*)?")
EXIT = re.compile(r"\|\| *exit +[1-9][0-9]* *$")
CONTROL_OPERATORS = re.compile(r"[|;\n]|(?<!>)&")  # `2>&1` is none
FAIL = re.compile(r"--fail(-with-body)?|-[a-eg-zA-Z]*f[a-zA-Z]*")  # without it, curl succeeds whatever the status


class Request(NamedTuple):
    """What a probe asks for, and how the message describes it."""

    port: int
    path: str
    words: str


@derived
def failing_probes(spec: AppServerSpec) -> tuple[str, ...]:
    """What is wrong with each liveness and startup probe that fails while the server is suspended."""
    try:
        return tuple(_failing(spec.template["spec"], spec.admin.port))
    except (BadTemplateError, TypeError, AttributeError, LookupError, ValueError):
        return ()  # the operator or the API server rejects such a template


def _failing(pod_spec: dict[str, Any], admin_port: str) -> Iterator[str]:
    server = admin_container(pod_spec, admin_port)
    management = {*MANAGEMENT_PORTS, _ports(server)[admin_port]}
    sidecars = [c for c in pod_spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    containers = [("containers", one) for one in pod_spec["containers"]] + [("initContainers", one) for one in sidecars]
    others = {number for _, one in containers if one is not server for number in _numbers(one)}
    for part, container in containers:
        for probe in PROBES:
            request = _request(container.get(probe) or {}, container)
            if request is None:
                continue
            is_servers = request.port in _numbers(server) or (container is server and request.port not in others)
            if request.port in management:
                why = "fails while the server is suspended" if request.path in FAILING_PATHS else ""
            else:
                why = "asks the application's port, where a suspended server answers 503" if is_servers else ""
            if why:
                where = f"spec.template.spec.{part}[name={container.get('name')}].{probe} ({request.words})"
                yield f"{where} {why}: the kubelet would restart the container; use /health/live on port {admin_port}"


def _request(probe: dict[str, Any], container: dict[str, Any]) -> Request | None:
    """None for a probe that asks something else, or in a way that isn't certain."""
    http, command = probe.get("httpGet"), (probe.get("exec") or {}).get("command")
    if http and not http.get("host"):
        path, port = http.get("path") or "/", http["port"]
        number = _ports(container).get(port) if isinstance(port, str) else port
        return None if number is None else Request(number, _plain(path), f"httpGet {path} on port {port}")
    return _of_command(command) if command else None


def _of_command(command: list[str]) -> Request | None:
    """A command that fails with the answer to one request to this pod: `wget`, or `curl --fail`."""
    words = command
    if len(command) == SHELL_WORDS and re.fullmatch(SHELL, command[0]) and command[1] == "-c":
        script = EXIT.sub("", command[2])
        if CONTROL_OPERATORS.search(script):
            return None
        words = shlex.split(script)
    program = words[0].rsplit("/", 1)[-1]
    fails = program == "wget" or (program == "curl" and any(FAIL.fullmatch(word) for word in words))
    urls = [match for word in words[1:] if (match := LOCAL_URL.fullmatch(word))]
    if not fails or len(urls) != 1:
        return None
    port = int(urls[0]["port"] or DEFAULT_PORTS[urls[0]["scheme"] or "http"])
    return Request(port, _plain(urls[0]["path"] or "/"), f"{program} {urls[0][0]}")


def _plain(path: str) -> str:
    """A path as the server looks it up."""
    return urlsplit(path).path.rstrip("/") or "/"


def _ports(container: dict[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container.get("ports") or () if "name" in port}


def _numbers(container: dict[str, Any]) -> set[int]:
    return {port["containerPort"] for port in container.get("ports") or ()}
