"""The images of the tests, built without Docker and without a registry, each as an archive in the cache."""

import re
import shutil
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import paths, programs
from tests.cluster.archive import Image, Layer, write_images, write_layer
from tests.cluster.steps import fingerprint, is_done, mark_done, run

PAUSE = "quiesce.local/pause:1"
WILDFLY = "quiesce.local/wildfly:1"
WILDFLY_NEXT = "quiesce.local/wildfly:2"
FORTIO = "quiesce.local/fortio:1"
OPERATOR = "quiesce.local/operator:dev"

DEBIAN = "bookworm"
OPERATOR_BASE = "debian:bookworm-slim"  # what the Dockerfile's FROM says
BUILDAH = paths.CACHE / "buildah"
# What the Dockerfile takes from the project.
COPIES = re.compile(r"^COPY (?!--from)(.*)$", re.MULTILINE)
WILDFLY_USER = 1000
# A small heap; otherwise the JVM as it runs by default, as in the images that people have.
JAVA_OPTS = "-Xms64m -Xmx256m -XX:MaxMetaspaceSize=256m -Djava.net.preferIPv4Stack=true -Djava.awt.headless=true"


@dataclass(frozen=True)
class Archive:
    """An image archive: what it is called, what it holds, and the stamp of what it was made from."""

    name: str
    references: tuple[str, ...]
    stamp: str
    make: Callable[[Path], None]

    @property
    def file(self) -> Path:
        return paths.IMAGES / f"{self.name}.tar"

    @property
    def done(self) -> bool:
        return self.file.exists() and is_done(f"image-{self.name}", self.stamp)

    def build(self) -> None:
        paths.IMAGES.mkdir(parents=True, exist_ok=True)
        self.make(self.file)
        mark_done(f"image-{self.name}", self.stamp)


def archives() -> list[Archive]:
    return [_pause(), _fortio(), _wildfly(), _operator()]


def build(wanted: list[Archive]) -> bool:
    """Builds what is out of date; False if nothing was."""
    missing = [archive for archive in wanted if not archive.done]
    for archive in missing:
        started = time.monotonic()
        print(f"\n      {', '.join(archive.references)} ... ", end="", flush=True)
        archive.build()
        print(f"{time.monotonic() - started:.0f} s", end="", flush=True)
    if missing:
        print("\n      altogether ", end="")
    return bool(missing)


def _pause() -> Archive:
    source = paths.SOURCES / "pause" / "pause.c"

    def make(target: Path) -> None:
        program = _scratch("pause") / "pause"
        run("gcc", "-O2", "-Wall", "-Werror", "-static", "-s", "-o", program, source, log="image-pause")
        layer = write_layer(program.with_name("layer.tar"), [(program, "pause")])
        write_images(target, [Image(PAUSE, ["/pause"], user="65535")], [layer])

    return Archive("pause", (PAUSE,), fingerprint(source), make)


def _fortio() -> Archive:
    def make(target: Path) -> None:
        layer = write_layer(_scratch("fortio") / "layer.tar", [(paths.BIN / "fortio", "fortio")])
        write_images(target, [Image(FORTIO, ["/fortio"], user="65532")], [layer])

    return Archive("fortio", (FORTIO,), fingerprint(programs.TOOLS["fortio"]), make)


def _wildfly() -> Archive:
    project = paths.SOURCES / "wildfly"

    def make(target: Path) -> None:
        base = _base("java", "openjdk-17-jre-headless")
        scratch = _scratch("wildfly")
        maven = ("mvn", "-B", "-ntp", "-f", project / "pom.xml", f"-Doutput={scratch}", "package")
        run(*maven, log="image-wildfly", advice="Maven has to reach its central repository: see its settings.xml.")
        (server_folder,) = (scratch / "server").iterdir()
        server = write_layer(scratch / "server.tar", [(server_folder, "opt/wildfly")], WILDFLY_USER)
        content = [
            (scratch / "ROOT.war", "opt/wildfly/standalone/deployments/ROOT.war"),
            (scratch / "ROOT-classes.jar", "opt/wildfly/classes.jar"),
            (project / "entrypoint.sh", "opt/wildfly/entrypoint.sh"),
        ]
        application = write_layer(scratch / "application.tar", content, WILDFLY_USER)
        write_images(
            target, [_wildfly_image(WILDFLY, "1"), _wildfly_image(WILDFLY_NEXT, "2")], [base, server, application]
        )
        shutil.rmtree(scratch)

    stamp = fingerprint(project, JAVA_OPTS, DEBIAN)
    return Archive("wildfly", (WILDFLY, WILDFLY_NEXT), stamp, make)


def _wildfly_image(reference: str, version: str) -> Image:
    env = {
        "HOME": "/opt/wildfly",
        "JBOSS_HOME": "/opt/wildfly",
        "JAVA_OPTS": JAVA_OPTS,
        # standalone.sh passes signals on to the server only then.
        "LAUNCH_JBOSS_IN_BACKGROUND": "true",
        "VERSION": version,
    }
    return Image(reference, ["/opt/wildfly/entrypoint.sh"], user=f"{WILDFLY_USER}:{WILDFLY_USER}", env=env)


def _operator() -> Archive:
    """The operator, from the project's own Dockerfile."""
    file = paths.PROJECT / "Dockerfile"
    inputs = [word for line in COPIES.findall(file.read_text()) for word in line.split()[:-1]]

    def make(target: Path) -> None:
        _buildah_base()
        authorities = ssl.get_default_verify_paths().cafile
        trust = ["--volume", f"{authorities}:/etc/ssl/certs/ca-certificates.crt:ro"] if authorities else []
        build = ("bud", "--pull-never", "--layers=false", "--format=docker", *trust, "--tag", OPERATOR)
        _buildah(*build, str(paths.PROJECT), log="image-operator")
        target.unlink(missing_ok=True)
        archive = f"docker-archive:{target}:{OPERATOR}"
        _buildah("push", "--disable-compression", OPERATOR, archive, log="image-operator-push")
        # The storage driver that works everywhere keeps a full copy of every image.
        _buildah("rmi", OPERATOR, log="image-operator-rmi")

    return Archive("operator", (OPERATOR,), fingerprint(DEBIAN, file, *(paths.PROJECT / name for name in inputs)), make)


def _buildah_base() -> None:
    """The image that the Dockerfile starts from, in buildah's storage."""
    stamp = fingerprint(DEBIAN, OPERATOR_BASE)
    if BUILDAH.exists() and is_done("buildah-base", stamp):
        return
    base = _base("python", "python3,python3-venv,ca-certificates")
    containerfile = _scratch("buildah-base") / "Containerfile"
    containerfile.write_text("FROM scratch\nADD base.tar /\n")
    shutil.copyfile(base.file, containerfile.with_name("base.tar"))
    _buildah("bud", "--layers=false", "--tag", OPERATOR_BASE, str(containerfile.parent), log="buildah-base")
    shutil.rmtree(containerfile.parent)
    mark_done("buildah-base", stamp)


def _buildah(*arguments: str, log: str) -> None:
    storage = ("--storage-driver", "vfs", "--root", BUILDAH / "root", "--runroot", BUILDAH / "run")
    run("buildah", *storage, *arguments, log=log, env={"BUILDAH_ISOLATION": "chroot"})


def _base(name: str, packages: str) -> Layer:
    """A Debian root file system as a layer; made once."""
    file = paths.BUILD / "base" / f"{name}.tar"
    stamp = fingerprint(DEBIAN, packages)
    if not (file.exists() and is_done(f"base-{name}", stamp)):
        file.parent.mkdir(parents=True, exist_ok=True)
        command = ("mmdebstrap", "--variant=apt", f"--include={packages}", "--dpkgopt=path-exclude=/usr/share/doc/*")
        run(*command, DEBIAN, file, log=f"base-{name}", advice="apt has to reach a Debian mirror: see /etc/apt.")
        mark_done(f"base-{name}", stamp)
    return Layer.of(file)


def _scratch(name: str) -> Path:
    folder = paths.BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
