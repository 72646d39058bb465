"""Sessions with servers: one for each pod, opened only after a live check of whose address it is."""

import asyncio

import msgspec

from quiesce.admin.port import AdminEndpoint, AdminError
from quiesce.admin.wildfly import WildFly
from quiesce.cluster.port import Cluster, ClusterError
from quiesce.control.queue import back_off
from quiesce.decide.mesh import mesh_hint
from quiesce.decide.podspec import admin_port
from quiesce.model.objects import Pod
from quiesce.model.resources import AppServer
from quiesce.model.server import AdminFailure, Report
from quiesce.model.times import Seconds

# After about ten wrong passwords, WildFly locks out the user for a quarter of an hour, for everyone who uses it.
FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 600.0


class Credentials(msgspec.Struct, frozen=True):
    username: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(***)"  # for exceptions and debuggers that show a session


class Session(msgspec.Struct, frozen=True):
    pod_uid: str
    pod_ip: str  # a pod can get a new one, and another pod this one
    spec: object  # the `admin` part of the spec that it was opened for
    credentials: Credentials
    endpoint: AdminEndpoint


class Refused(msgspec.Struct, frozen=True):
    """Credentials that a server rejected: the same ones are not tried again before `retry_at`."""

    pod_uid: str
    credentials: Credentials
    message: str
    retry_at: Seconds
    count: int


class Admins:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sessions: dict[tuple[str, str], Session] = {}
        self._refused: dict[tuple[str, str], Refused] = {}

    async def report(self, server: AppServer, pod: Pod) -> Report | AdminFailure:
        try:
            return await (await self.endpoint(server, pod)).report()
        except AdminError as error:
            if error.failure.kind == "Unauthorized":
                self._note_refusal(server, error.failure.message)
                await self.drop(server)  # the next session rereads the Secret, which may have changed
                secret = server.spec.admin.credentials_secret_ref.name
                message = f"{error.failure.message}: check username and password in Secret {secret!r}"
                tried = self._refused.get(server.metadata.key)
                if tried and tried.credentials.password.endswith("\n"):
                    message += ", whose password ends with a newline"
                return AdminFailure("Unauthorized", message)
            return self._with_hint(error.failure, server, pod)

    async def endpoint(self, server: AppServer, pod: Pod) -> AdminEndpoint:
        key = server.metadata.key
        session = self._sessions.get(key)
        wanted = (pod.metadata.uid, pod.status.pod_ip, server.spec.admin)
        if session and (session.pod_uid, session.pod_ip, session.spec) == wanted:
            return session.endpoint
        await self.drop(server)
        credentials, endpoint = await self._open(server, pod)
        self._sessions[key] = Session(*wanted, credentials, endpoint)
        return endpoint

    def _with_hint(self, failure: AdminFailure, server: AppServer, pod: Pod) -> AdminFailure:
        """A service mesh that admits only its own callers hangs up, or answers 403."""
        port = admin_port(server, pod)
        hint = mesh_hint(pod, port.number) if port and (failure.hung_up or failure.kind == "Forbidden") else ""
        return msgspec.structs.replace(failure, message=f"{failure.message}; {hint}") if hint else failure

    def _note_refusal(self, server: AppServer, message: str) -> None:
        key = server.metadata.key
        session, before = self._sessions.get(key), self._refused.get(key)
        if session is None:
            return  # the server was not queried again
        same = before is not None and (before.pod_uid, before.credentials) == (session.pod_uid, session.credentials)
        count = before.count + 1 if before and same else 1
        retry_at = asyncio.get_running_loop().time() + back_off(count, FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
        self._refused[key] = Refused(session.pod_uid, session.credentials, message, retry_at, count)

    async def close(self) -> None:
        for key in list(self._sessions):
            await self._end(key)

    async def drop(self, server: AppServer) -> None:
        await self._end(server.metadata.key)

    async def forget(self, namespace: str, name: str) -> None:
        self._refused.pop((namespace, name), None)
        await self._end((namespace, name))

    async def _end(self, key: tuple[str, str]) -> None:
        session = self._sessions.pop(key, None)
        if session:
            await session.endpoint.close()

    async def _open(self, server: AppServer, pod: Pod) -> tuple[Credentials, AdminEndpoint]:
        """Credentials go to the address of this server's own pod and nowhere else."""
        own, admin = server.metadata, server.spec.admin
        live = await self._cluster.pod(own.namespace, own.name)
        if live is None or live.metadata.uid != pod.metadata.uid or not live.metadata.is_owned_by(own.uid):
            raise AdminError("Unreachable", f"pod {own.name} has just been replaced")
        if not live.status.pod_ip or live.status.pod_ip != pod.status.pod_ip:
            raise AdminError("Unreachable", f"pod {own.name} has no address yet, or a new one")
        port = admin_port(server, live)
        if port is None:
            raise AdminError("Misconfigured", f"spec.admin.port: pod {own.name} has no port named {admin.port!r}")
        credentials, refused = await self._credentials(server), self._refused.get(own.key)
        if refused and (refused.pod_uid, refused.credentials) == (pod.metadata.uid, credentials):
            if asyncio.get_running_loop().time() < refused.retry_at:
                raise AdminError("Unauthorized", refused.message)
        else:
            self._refused.pop(own.key, None)
        return credentials, WildFly(live.status.pod_ip, port.number, credentials.username, credentials.password)

    async def _credentials(self, server: AppServer) -> Credentials:
        name = server.spec.admin.credentials_secret_ref.name
        try:
            secret = await self._cluster.secret(server.metadata.namespace, name)
        except ClusterError as error:
            if not error.is_refusal:
                raise
            raise AdminError("Misconfigured", f"Secret {name!r} can't be read: {error.message}") from None
        if secret is None:
            message = (
                f"spec.admin.credentialsSecretRef: Secret {name!r} does not exist: create it with username and password"
            )
            raise AdminError("Misconfigured", message)
        missing = [key for key in ("username", "password") if not secret.get(key)]
        if missing:
            raise AdminError("Misconfigured", f"Secret {name!r} lacks {' and '.join(missing)}")
        try:
            found = Credentials(secret["username"].decode(), secret["password"].decode())
        except UnicodeDecodeError:
            raise AdminError("Misconfigured", f"username and password in Secret {name!r} are not UTF-8") from None
        if ":" in found.username or not found.username.isprintable():  # can't be sent (RFC 7616, section 3.4.4)
            bad = "ends with a newline" if found.username.endswith("\n") else "has a colon or a control character"
            raise AdminError("Misconfigured", f"username in Secret {name!r} {bad}: it can't be sent to the server")
        return found
