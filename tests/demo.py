"""`make demo`: rolling restarts of three WildFly servers under load, by a StatefulSet and by Quiesce; counts losses."""

import contextlib
import json
import os
import sys
import time

from tests import install
from tests.cluster import local
from tests.cluster.access import is_local
from tests.cluster.load import Load, Result, service_url
from tests.estate import Estate, Watcher, kubectl
from tests.rolls import (
    AFTER_SECONDS,
    Roll,
    native,
    roll_server_group,
    roll_stateful_set,
    server_group,
    stateful_set,
    step,
)


def main() -> int:
    with step("install the operator with Helm"):
        install.install()
    try:
        with stateful_set("plain", native()) as estate:
            plain = roll_stateful_set(estate)
        with server_group() as estate:
            quiesce = roll_server_group(estate)
            print(kubectl("-n", estate.namespace, "get", "sg,aps"), flush=True)
            with step("  suspend and resume of shop-1 by kubectl annotate, under load"):
                cycle = suspend_and_resume(estate)
    finally:
        with step("take everything down") if not os.environ.get("KEEP") else contextlib.nullcontext():
            if not os.environ.get("KEEP"):
                install.uninstall()
                if is_local():
                    local.down()
    tell(plain, quiesce, cycle)
    return 1 if quiesce.load.failed or cycle.failed else 0


def suspend_and_resume(estate: Estate) -> Result:
    with Load(estate.namespace, service_url(estate.namespace, "shop")) as load:
        time.sleep(AFTER_SECONDS)
        began = time.monotonic()

        def state() -> str:
            return estate.state("shop-1")

        with Watcher(state, lambda value: print(f"      {time.monotonic() - began:5.1f} s  {value}", flush=True)):
            print("      kubectl annotate aps/shop-1 quiesce.dev/suspend=true", flush=True)
            estate.annotate("aps/shop-1", suspend="true")
            estate.wait_state("shop-1", "Suspended")
            print("      kubectl annotate aps/shop-1 quiesce.dev/suspend-", flush=True)
            estate.annotate("aps/shop-1", suspend=None)
            estate.wait_ready("shop")
        time.sleep(AFTER_SECONDS)
        return load.stop()


def tell(plain: Roll, quiesce: Roll, cycle: Result) -> None:
    rows: list[tuple[str, ...]] = [
        ("", "requests", "failed", "kept-alive", "new conn.", "slow (5 s)", "pausing", "rollout")
    ]
    for title, load, seconds in (
        ("StatefulSet, rolling restart", plain.load, plain.seconds),
        ("Quiesce, rolling restart", quiesce.load, quiesce.seconds),
        ("Quiesce, suspend and resume", cycle, None),
    ):
        failures = [f"{kind.failures} of {kind.requests}" for kind in load.kinds.values()]
        took = f"{seconds:.1f} s" if seconds else ""
        rows.append((title, str(load.total), str(load.failed), *failures, took))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    ratio = quiesce.seconds / plain.seconds
    lost = quiesce.load.failed + cycle.failed
    print(f"Quiesce lost {lost} requests; its rollout took {ratio:.2f} times the StatefulSet's.")
    figures = {
        name: {
            "requests": load.total,
            "failed": load.failed,
            "kinds": {kind: {"requests": k.requests, "failed": k.failures} for kind, k in load.kinds.items()},
        }
        for name, load in (("statefulset", plain.load), ("quiesce", quiesce.load), ("suspendResume", cycle))
    }
    rolls = {"statefulset": round(plain.seconds, 1), "quiesce": round(quiesce.seconds, 1), "ratio": round(ratio, 2)}
    print(json.dumps({**figures, "rollSeconds": rolls}))


if __name__ == "__main__":
    sys.exit(main())
