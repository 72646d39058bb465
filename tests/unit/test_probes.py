"""Probes that fail while a server is suspended are reported when the template is seen, and no others."""

from typing import Any

import msgspec
import pytest

from quiesce.decide.group import decide_group
from quiesce.decide.probes import failing_probes
from quiesce.decide.server import decide
from quiesce.decide.status import group_events, group_status, server_events, server_status
from quiesce.model.objects import Condition
from quiesce.model.resources import AppServerStatus, ServerGroupStatus
from tests.unit.build import group, look, look_at_group, member, pod, server, spec

replace = msgspec.structs.replace
Manifest = dict[str, Any]
PORTS = [{"name": "web", "containerPort": 8180}, {"name": "management", "containerPort": 9990}]


def http(path: str | None, port: int | str, **others: str) -> Manifest:
    return {"httpGet": {**({} if path is None else {"path": path}), "port": port, **others}}


def command(*words: str) -> Manifest:
    return {"exec": {"command": list(words)}}


def template(probe: Manifest, kind: str = "livenessProbe", **pod_spec: Any) -> Manifest:
    return {"spec": {"containers": [{"name": "wildfly", "image": "i", "ports": PORTS, kind: probe}], **pod_spec}}


def beside(probe: Manifest, **container: Any) -> Manifest:
    """A template whose second container has the probe."""
    whole = template({})
    whole["spec"]["containers"].append({"name": "other", "image": "i", "livenessProbe": probe, **container})
    return whole


BAD = {
    "all checks": template(http("/health", "management")),
    "all checks, by number": template(http("/health", 9990)),
    "with a slash and a query": template(http("/health/?verbose", 9990)),
    "readiness": template(http("/health/ready", "management")),
    "on the TLS port": template(http("/health", 9993, scheme="HTTPS")),
    "of a startup": template(http("/health/ready", "management"), "startupProbe"),
    "the application": template(http("/", "web")),
    "the application, without a path": template(http(None, 8180)),
    "a port that is not declared": template(http("/alive", 8080)),
    "live, of the application": template(http("/health/live", "web")),
    "curl": template(command("curl", "-sf", "http://localhost:9990/health")),
    "curl in a shell": template(command("sh", "-c", "curl --fail -o /dev/null http://127.0.0.1:8180/ 2>&1 || exit 1")),
    "wget": template(command("/usr/bin/wget", "-q", "-O-", "localhost:9990/health/ready")),
    "another container's, of the server": beside(http("/", 8180)),
    "a native sidecar's, of the server": template(
        {}, initContainers=[{"name": "s", "restartPolicy": "Always", "startupProbe": http("/health", 9990)}]
    ),
}
GOOD = {
    "live": template(http("/health/live", "management")),
    "started": template(http("/health/started", "management"), "startupProbe"),
    "of the readiness": template(http("/health/ready", "management"), "readinessProbe"),
    "the console": template(http("/", "management")),
    "a socket": template({"tcpSocket": {"port": "web"}}),
    "gRPC": template({"grpc": {"port": 8180}}),
    "another host": template(http("/health", 9990, host="192.0.2.1")),
    "a port that there is not": template(http("/", "nowhere")),
    "a port of another container": {
        "spec": {
            "containers": [
                *template(http("/", 15000))["spec"]["containers"],
                {"name": "proxy", "ports": [{"containerPort": 15000}]},
            ]
        }
    },
    "curl that never fails": template(command("curl", "-s", "http://localhost:9990/health")),
    "curl whose failure is ignored": template(command("sh", "-c", "curl -f localhost:9990/health || true")),
    "curl of another host": template(command("curl", "-f", "http://shop:9990/health")),
    "curl of two": template(command("curl", "-f", "localhost:9990/health", "localhost:9990/health/live")),
    "a script": template(command("/opt/server/bin/livenessProbe.sh")),
    "an empty script": template(command("sh", "-c", "")),
    "spaces without end, which take no time": template(command("sh", "-c", "x" + " " * 100_000 + "x")),
    "flags without end, which take no time": template(
        command("curl", "-" + "f" * 50_000 + "1", "localhost:9990/health")
    ),
    "a script that can't be read": template(command("sh", "-c", "curl -f 'localhost:9990/health")),
    "another container's own": beside(http("/", "own"), ports=[{"name": "own", "containerPort": 8888}]),
    "another container's, undeclared": beside(http("/", 8888)),
    "an init container's": template({}, initContainers=[{"name": "s", "livenessProbe": http("/health", 9990)}]),
    "none": template({}),
    "no template": {"spec": None},
    "no list": template("no probe"),  # type: ignore[arg-type]
    "a probe of nothing": template({"httpGet": {"path": "/"}}),
}


@pytest.mark.parametrize("template", BAD.values(), ids=BAD)
def test_a_probe_that_fails_while_suspended_is_named(template: Manifest) -> None:
    (message,) = failing_probes(spec(template=template))
    assert message.startswith("spec.template.spec.")
    assert "Probe (" in message
    assert message.endswith("use /health/live on port management")


@pytest.mark.parametrize("template", GOOD.values(), ids=GOOD)
def test_nothing_is_said_of_others(template: Manifest) -> None:
    assert failing_probes(spec(template=template)) == ()


def test_the_message_quotes_the_probe_and_says_why() -> None:
    assert failing_probes(spec(template=BAD["all checks"]))[0].startswith(
        "spec.template.spec.containers[name=wildfly].livenessProbe (httpGet /health on port management) "
        "fails while the server is suspended: the kubelet would restart the container"
    )
    assert "8180/) asks the application's port" in failing_probes(spec(template=BAD["curl in a shell"]))[0]


def test_the_admin_port_may_have_any_number() -> None:
    moved = template(http("/health/live", 19990))
    moved["spec"]["containers"][0]["ports"] = [{"name": "management", "containerPort": 19990}]
    assert failing_probes(spec(template=moved)) == ()
    moved["spec"]["containers"][0]["livenessProbe"] = http("/health", 19990)
    assert len(failing_probes(spec(template=moved))) == 1


def unsafe(status: AppServerStatus | ServerGroupStatus) -> Condition:
    return next(c for c in status.conditions if c.type == "UnsafeProbe")


def test_a_server_that_serves_reports_it_in_a_condition_and_once_in_an_event_and_is_ready() -> None:
    one = server(template=BAD["all checks"])
    o = look(one, pod(of=BAD["all checks"]))
    plan = decide(o)
    status = msgspec.convert(msgspec.to_builtins(server_status(o, plan)), AppServerStatus)
    told = unsafe(status)
    assert (told.status, told.reason) == ("True", "FailsWhileSuspended")
    assert "livenessProbe (httpGet /health " in told.message
    assert {c.type: c.status for c in status.conditions if c.type in ("Ready", "Stalled")} == {
        "Ready": "True",
        "Stalled": "False",
    }
    warnings = [note for note in server_events(o, plan) if note.warning]
    assert [(note.reason, note.message) for note in warnings] == [("FailsWhileSuspended", told.message)]
    again = look(replace(one, status=status), o.pod)
    assert not [note for note in server_events(again, decide(again)) if note.warning]


def test_a_group_reports_it_before_it_has_servers_and_takes_it_back() -> None:
    of = group(1, template=BAD["the application"])
    o = look_at_group(of)
    plan = decide_group(o)
    status = msgspec.convert(msgspec.to_builtins(group_status(o, plan)), ServerGroupStatus)
    told = unsafe(status)
    assert (told.status, told.reason) == ("True", "FailsWhileSuspended")
    assert told.message.startswith("spec.template.spec.template.spec.containers[name=wildfly].livenessProbe (")
    assert [note.message for note in group_events(o, plan) if note.warning] == [told.message]
    mended = group(1, template=GOOD["live"], status=status)
    o = look_at_group(mended, member(0, mended))
    told = unsafe(group_status(o, decide_group(o)))
    assert (told.status, told.reason, told.message) == ("False", "NoUnsafeProbe", "")
