"""What users request: annotations and `desiredState`, and which of them applies."""

import re

import msgspec

from quiesce.model import names
from quiesce.model.objects import Metadata
from quiesce.model.plan import Note
from quiesce.model.resources import AppServer, DesiredState, Scope, ServerGroup
from quiesce.model.text import QUOTE_BYTES, quoted, shown

DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s)?")
WHOLE_NUMBER = re.compile(r"-1|[0-9]{1,9}")


class SuspendValue(msgspec.Struct, frozen=True):
    """`timeout` None: the one in the spec. 0 immediately, -1 no limit, N seconds, as for WildFly's suspend."""

    on: bool
    timeout: int | None = None


def parse_suspend(text: str) -> SuspendValue | None:
    """The value of `quiesce.dev/suspend`; None if it is invalid."""
    if text in ("true", "false"):
        return SuspendValue(on=text == "true")
    if WHOLE_NUMBER.fullmatch(text):
        return SuspendValue(on=True, timeout=int(text))
    match = DURATION.fullmatch(text)
    if text and match:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return SuspendValue(on=True, timeout=hours * 3600 + minutes * 60 + seconds)
    return None


def accepted_suspend(metadata: Metadata, last: str | None) -> tuple[str | None, Note | None]:
    """The annotation's value, or in place of an invalid one the last valid one, with the complaint."""
    text = metadata.annotations.get(names.SUSPEND)
    if text is None or parse_suspend(text):
        return text, None
    last = last if last is not None and parse_suspend(last) else None
    kept = f"{last!r} stays in force" if last is not None else "it is ignored"
    return last, Note(
        "BadAnnotation",
        f"{names.SUSPEND}={quoted(text)} is not true, false, a whole number of seconds (-1, 0, N) "
        f"or a duration like 90s or 5m; {kept}",
    )


class Aim(msgspec.Struct, frozen=True):
    """The desired state of a server. `serve` and `keep` false: stopped; `keep` without `serve`: suspended."""

    serve: bool
    keep: bool
    scope: Scope = "Spec"
    timeout: int = 0
    requested_by: str = ""
    reason: str = ""


def declared_of(server: AppServer, group: ServerGroup | None) -> DesiredState:
    """What the specs of a server and its group declare, regardless of annotations."""
    return strongest(server.spec.desired_state, group.spec.desired_state if group else "Running")


def strongest(*desired: DesiredState) -> DesiredState:
    return max(desired, key=("Running", "Suspended", "Stopped").index)


def aim_of(server: AppServer, group: ServerGroup | None) -> Aim:
    """Removal, then `Stopped`, then the most specific `quiesce.dev/suspend`, then `desiredState: Suspended`."""
    spec = server.spec
    declared = declared_of(server, group)
    timeout = spec.suspend_timeout_seconds
    if server.metadata.deletion_timestamp:
        return Aim(serve=False, keep=False, scope="Removal", timeout=timeout, reason="the AppServer is being deleted")
    if declared == "Stopped":
        own = group is None or "Stopped" in (group.spec.desired_state, group.spec.template.spec.desired_state)
        reason = "desiredState is Stopped" if own else "the group is being scaled down"
        return Aim(serve=False, keep=False, scope="Stop", timeout=timeout, reason=reason)
    for scope, owner in (("Server", server), ("Group", group)):
        if owner is None:
            continue
        text, _ = accepted_suspend(owner.metadata, owner.status.accepted_suspend)
        value = parse_suspend(text) if text is not None else None
        if value is None:
            continue
        if not value.on:
            return Aim(serve=True, keep=True)
        return Aim(
            serve=False,
            keep=True,
            scope="Server" if scope == "Server" else "Group",
            timeout=timeout if value.timeout is None else value.timeout,
            requested_by=shown(owner.metadata.annotated_by(names.SUSPEND), QUOTE_BYTES),
            reason=shown(owner.metadata.annotations.get(names.SUSPEND_REASON, f"{names.SUSPEND}={text}"), QUOTE_BYTES),
        )
    if declared == "Suspended":
        return Aim(serve=False, keep=True, timeout=timeout, reason="desiredState is Suspended")
    return Aim(serve=True, keep=True)
