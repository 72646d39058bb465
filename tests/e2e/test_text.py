"""No matter what users write, or whether a status can be written: servers are reconciled, and problems reported."""

import contextlib
import json
from collections.abc import Iterator

from tests.estate import Estate, kubectl, wait

LONG = 100_000
MOST_BYTES = 32 * 1024


def test_any_text_can_be_the_reason_of_a_suspension(shop: Estate) -> None:
    shop.annotate("aps/shop-2", suspend="true", suspend_reason="maintenance 😀")
    shop.wait_state("shop-2", "Suspended")
    assert shop.status("shop-2")["suspend"]["reason"] == "maintenance 😀"
    shop.annotate("aps/shop-2", suspend_reason=f"disk\n\x1b[2J\u2028{LONG * 'x'}")
    wait("the reason is escaped", lambda: shop.status("shop-2")["suspend"]["reason"].startswith("disk\\n\\x1b[2J"), 10)
    assert size(shop, "aps", "shop-2") < MOST_BYTES
    shop.annotate("aps/shop-2", suspend=None, suspend_reason=None)
    shop.wait_ready("shop")


def test_what_is_refused_for_a_long_label_is_said_in_few_words(shop: Estate) -> None:
    before = shop.uids()
    label(shop, LONG * "x")
    try:
        wait("the group says what is wrong", lambda: "63" in shop.condition("sg", "shop", "Stalled")["message"], 20)
        assert all(size(shop, "aps", name) < MOST_BYTES for name in before)
        assert size(shop, "sg", "shop") < MOST_BYTES
    finally:
        label(shop, None)
    shop.wait_ready("shop")
    assert shop.uids() == before


def test_a_server_whose_status_is_refused_is_suspended_and_resumed(shop: Estate) -> None:
    with refused_statuses(shop):
        shop.annotate("aps/shop-1", suspend="true")
        wait("it is suspended", lambda: shop.says("shop-1") == "SUSPENDED", 30)
        assert shop.endpoints() == {"shop-0", "shop-2"}
        assert shop.state("shop-1") == "Running"
        shop.wait_event("shop-1", "StatusRefused", "no status today")
        shop.annotate("aps/shop-1", suspend=None)
        shop.wait_serving({"shop-0", "shop-1", "shop-2"})
        assert shop.says("shop-1") == "RUNNING"
        shop.annotate("aps/shop-1", suspend="true")
        wait("it is suspended", lambda: shop.says("shop-1") == "SUSPENDED", 30)
    wait("its status is written", lambda: shop.state("shop-1") == "Suspended", 40)
    shop.annotate("aps/shop-1", suspend=None)
    shop.wait_ready("shop")


def size(estate: Estate, kind: str, name: str) -> int:
    return len(json.dumps((estate.get(kind, name) or {})["status"]).encode())


def label(estate: Estate, value: str | None) -> None:
    metadata = None if value is None else {"labels": {"example.com/note": value}}
    patch = {"spec": {"template": {"spec": {"template": {"metadata": metadata}}}}}
    estate.kubectl("patch", "sg/shop", "--type=merge", f"--patch={json.dumps(patch)}")


@contextlib.contextmanager
def refused_statuses(estate: Estate) -> Iterator[None]:
    """A policy that takes no status of an AppServer of this namespace."""
    name = f"{estate.namespace}-no-status"
    here = {"matchLabels": {"kubernetes.io/metadata.name": estate.namespace}}
    rule = {"apiGroups": ["quiesce.dev"], "apiVersions": ["*"], "resources": ["appservers/status"]}
    policy = {
        "matchConstraints": {"resourceRules": [{**rule, "operations": ["UPDATE"]}], "namespaceSelector": here},
        "validations": [{"expression": "false", "message": "no status today"}],
    }
    api = "admissionregistration.k8s.io/v1"
    estate.apply(api, "ValidatingAdmissionPolicy", name, namespaced=False, spec=policy)
    binding = {"policyName": name, "validationActions": ["Deny"]}
    estate.apply(api, "ValidatingAdmissionPolicyBinding", name, namespaced=False, spec=binding)
    probe = ["-n", estate.namespace, "patch", "aps/shop-0", "--subresource=status", "--type=merge", "--dry-run=server"]

    def is_refused() -> bool:
        try:
            kubectl(*probe, '--patch={"status":{"state":"Unknown"}}')
        except AssertionError:
            return True
        return False

    try:
        wait("the policy is in force", is_refused, 20)
        yield
    finally:
        kubectl("delete", f"validatingadmissionpolicybinding/{name}", f"validatingadmissionpolicy/{name}")
