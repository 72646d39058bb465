"""The cluster's control plane: etcd, API server, controller manager, scheduler, and the proxy of both nodes."""

from pathlib import Path

import yaml

from tests.cluster import network, paths, pki, processes
from tests.cluster.access import answers, client
from tests.cluster.pki import Authority

SERVER = f"https://{network.ADDRESS}:6443"
ETCD = "http://127.0.0.1:2379"
DAEMONS = ("kube-scheduler", "kube-controller-manager", "kube-proxy", "kube-apiserver", "etcd")
FRONT_PROXY = "front-proxy-client"
OPERATOR = "system:serviceaccount:quiesce-system:quiesce"
# Who wrote what, for the tests that count; and what the operator read, which has to be nothing when nothing happens.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Metadata", "users": [OPERATOR], "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


def start(authority: Authority, node_address: str) -> None:
    """Starts everything, and returns when the API server is ready."""
    folder = authority.pair.certificate.parent
    processes.start(
        "etcd",
        "etcd",
        f"--data-dir={paths.CLUSTER / 'etcd'}",
        # What it holds is thrown away at the end: no need to wait for the disk.
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
    )
    accounts = pki.signing_pair(folder)
    _start_api_server(authority, accounts, node_address)
    _start_clients(authority, accounts)


def _start_api_server(authority: Authority, accounts: pki.Pair, node_address: str) -> None:
    folder = authority.pair.certificate.parent
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    addresses = ("127.0.0.1", network.API_SERVICE, network.ADDRESS, node_address)
    serving = authority.issue("kube-apiserver", "kube-apiserver", addresses=(*names, *addresses))
    to_kubelets = authority.issue("kubelet-client", "kube-apiserver", "system:masters")
    admin = authority.issue("admin", "admin", "system:masters")
    # Aggregated APIs are asked in a user's name by a client that an authority of its own vouches for.
    front = Authority(folder / "front-proxy")
    to_aggregated = front.issue("front-proxy-client", FRONT_PROXY)
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(AUDIT_POLICY))
    processes.start(
        "kube-apiserver",
        "kube-apiserver",
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        # Pods find the API server behind its Service at this address; it may not be a loopback one.
        f"--advertise-address={node_address}",
        f"--service-cluster-ip-range={network.SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        f"--client-ca-file={authority.pair.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-client-certificate={to_kubelets.certificate}",
        f"--kubelet-client-key={to_kubelets.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        f"--requestheader-client-ca-file={front.pair.certificate}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={to_aggregated.certificate}",
        f"--proxy-client-key-file={to_aggregated.key}",
        "--enable-aggregator-routing",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={paths.AUDIT_LOG}",
        # The tests read one file: no rotation.
        "--audit-log-maxsize=2000",
    )
    # Not under its final name before the server is ready: who finds the file can use it.
    kubeconfig = authority.kubeconfig(folder / "admin.kubeconfig", SERVER, admin)
    api = client(kubeconfig)
    processes.wait_for("the API server is ready", lambda: answers(api), "kube-apiserver", timeout=120)
    kubeconfig.rename(paths.KUBECONFIG)


def _start_clients(authority: Authority, accounts: pki.Pair) -> None:
    ca = authority.pair
    processes.start(
        "kube-controller-manager",
        "kube-controller-manager",
        f"--kubeconfig={_kubeconfig(authority, 'kube-controller-manager')}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={accounts.key}",
        f"--root-ca-file={ca.certificate}",
        f"--cluster-signing-cert-file={ca.certificate}",
        f"--cluster-signing-key-file={ca.key}",
        "--horizontal-pod-autoscaler-sync-period=2s",
        # A node that is lost is noticed in a test's time: its kubelet renews its Lease every 2.5 s.
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=16s",
    )
    processes.start(
        "kube-scheduler",
        "kube-scheduler",
        f"--kubeconfig={_kubeconfig(authority, 'kube-scheduler')}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )
    # One for both nodes: they share the network namespace. Its group has a ClusterRole, but no user is bound to it yet.
    _bind_proxy()
    processes.start(
        "kube-proxy",
        "kube-proxy",
        f"--kubeconfig={_kubeconfig(authority, 'kube-proxy')}",
        "--hostname-override=node-1",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--healthz-bind-address=127.0.0.1",
        "--metrics-bind-address=127.0.0.1",
    )


def _bind_proxy() -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kube-proxy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
    }
    answer = client(paths.KUBECONFIG).post(
        version="rbac.authorization.k8s.io/v1", base="/apis", url="clusterrolebindings", json=binding
    )
    answer.raise_for_status()


def _kubeconfig(authority: Authority, name: str) -> Path:
    pair = authority.issue(name, f"system:{name}")
    return authority.kubeconfig(pair.key.with_suffix(".kubeconfig"), SERVER, pair)
