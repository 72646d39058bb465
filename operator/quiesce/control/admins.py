"""Sessions with servers: one for each pod, opened only after a live check of whose address it is."""

import asyncio

import msgspec

from quiesce.admin.port import AdminEndpoint, AdminError
from quiesce.admin.wildfly import WildFly
from quiesce.cluster.port import Cluster, ClusterError
from quiesce.control.queue import back_off
from quiesce.decide.mesh import mesh_hint
from quiesce.decide.podspec import admin_port, admin_secrets
from quiesce.model.objects import NamedPort, Pod
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


class Login(msgspec.Struct, frozen=True):
    secret: str
    credentials: Credentials


class Session(msgspec.Struct, frozen=True):
    pod_uid: str
    pod_ip: str  # a pod can get a new one, and another pod this one
    port: NamedPort | None
    login: Login
    endpoint: AdminEndpoint


class Refused(msgspec.Struct, frozen=True):
    """Credentials that a server rejected: the same ones are not tried again before `retry_at`."""

    pod_uid: str
    tried: dict[str, Credentials]  # by the name of their Secret; the last ones were tried last
    message: str
    retry_at: Seconds
    count: int


class Admins:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sessions: dict[tuple[str, str], Session] = {}
        self._refused: dict[tuple[str, str], Refused] = {}

    async def report(self, server: AppServer, pod: Pod) -> Report | AdminFailure:
        key = server.metadata.key
        before = self._refused.get(key)
        answer = await self._report(server, pod)
        if self._refused.get(key) is not before and len(admin_secrets(server, pod)) > 1:
            return await self._report(server, pod)  # with the other Secret, unless the server rejected that too
        return answer

    async def _report(self, server: AppServer, pod: Pod) -> Report | AdminFailure:
        try:
            return await (await self.endpoint(server, pod)).report()
        except AdminError as error:
            if error.failure.kind != "Unauthorized":
                return self._with_hint(error.failure, server, pod)
            session = self._sessions.get(server.metadata.key)
            if session is None:
                return error.failure  # the server was not queried again
            await self.drop(server)  # the next session rereads the Secret, which may have changed
            return AdminFailure("Unauthorized", self._note_refusal(server, pod, session.login, error.failure.message))

    async def endpoint(self, server: AppServer, pod: Pod) -> AdminEndpoint:
        """A session continues with its credentials until the server rejects them, whatever becomes of the Secret."""
        key, wanted = server.metadata.key, (pod.metadata.uid, pod.status.pod_ip, admin_port(server, pod))
        session = self._sessions.get(key)
        if session and (session.pod_uid, session.pod_ip, session.port) == wanted:
            return session.endpoint
        await self.drop(server)
        login, endpoint = await self._open(server, pod)
        self._sessions[key] = Session(*wanted, login, endpoint)
        return endpoint

    def _with_hint(self, failure: AdminFailure, server: AppServer, pod: Pod) -> AdminFailure:
        """A service mesh that admits only its own callers hangs up, or answers 403."""
        port = admin_port(server, pod)
        hint = mesh_hint(pod, port.number) if port and (failure.hung_up or failure.kind == "Forbidden") else ""
        return msgspec.structs.replace(failure, message=f"{failure.message}; {hint}") if hint else failure

    def _note_refusal(self, server: AppServer, pod: Pod, login: Login, message: str) -> str:
        """Records the refusal, and returns it in words."""
        before, secrets = self._refused.get(server.metadata.key), admin_secrets(server, pod)
        known = before.tried if before and before.pod_uid == pod.metadata.uid else {}
        tried = {name: one for name, one in known.items() if name in secrets}
        count = before.count + 1 if before and login.credentials in tried.values() else 1
        tried.pop(login.secret, None)
        tried[login.secret] = login.credentials
        where = [
            f"in Secret {name!r}" + (", whose password ends with a newline" if one.password.endswith("\n") else "")
            for name, one in sorted(tried.items())
        ]
        message = f"{message}: check username and password {', and '.join(where)}"
        retry_at = asyncio.get_running_loop().time() + back_off(count, FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
        self._refused[server.metadata.key] = Refused(pod.metadata.uid, tried, message, retry_at, count)
        return message

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

    async def _open(self, server: AppServer, pod: Pod) -> tuple[Login, AdminEndpoint]:
        """Credentials go to the address of this server's own pod and nowhere else."""
        own = server.metadata
        live = await self._cluster.pod(own.namespace, own.name)
        if live is None or live.metadata.uid != pod.metadata.uid or not live.metadata.is_owned_by(own.uid):
            raise AdminError("Unreachable", f"pod {own.name} has just been replaced")
        if not live.status.pod_ip or live.status.pod_ip != pod.status.pod_ip:
            raise AdminError("Unreachable", f"pod {own.name} has no address yet, or a new one")
        port = admin_port(server, live)
        if port is None:
            name = server.spec.admin.port
            raise AdminError("Misconfigured", f"spec.admin.port: pod {own.name} has no port named {name!r}")
        login = await self._login(server, live)
        username, password = login.credentials.username, login.credentials.password
        return login, WildFly(live.status.pod_ip, port.number, username, password)

    async def _login(self, server: AppServer, pod: Pod) -> Login:
        """The first credentials that the server has not rejected, or after a while, those that it rejected first."""
        refused = self._refused.get(server.metadata.key)
        tried = list(refused.tried.values()) if refused and refused.pod_uid == pod.metadata.uid else []
        rejected: list[Login] = []
        problems: list[str] = []
        for secret in admin_secrets(server, pod):
            try:
                login = Login(secret, await self._credentials(server, secret))
            except AdminError as error:
                problems.append(error.failure.message)
                continue
            if login.credentials not in tried:
                return login
            rejected.append(login)
        if refused is None or not rejected:
            raise AdminError("Misconfigured", "; ".join(problems))
        if asyncio.get_running_loop().time() < refused.retry_at:
            raise AdminError("Unauthorized", "; ".join((refused.message, *problems)))
        return min(rejected, key=lambda login: tried.index(login.credentials))

    async def _credentials(self, server: AppServer, name: str) -> Credentials:
        try:
            secret = await self._cluster.secret(server.metadata.namespace, name)
        except ClusterError as error:
            if not error.is_refusal:
                raise
            raise AdminError("Misconfigured", f"Secret {name!r} can't be read: {error.message}") from None
        if secret is None:
            is_named = name == server.spec.admin.credentials_secret_ref.name
            what = (
                f"spec.admin.credentialsSecretRef: Secret {name!r}"
                if is_named
                else f"Secret {name!r}, which the pod was created for,"
            )
            raise AdminError("Misconfigured", f"{what} does not exist: create it with username and password")
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
