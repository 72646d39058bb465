"""Writing image archives (the docker-archive format) without a container engine."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# One fixed time, so that the same files give the same layer.
EPOCH = 1767225600


@dataclass(frozen=True)
class Layer:
    """A layer as a tar file that was written already."""

    file: Path
    digest: str

    @classmethod
    def of(cls, file: Path) -> "Layer":
        with file.open("rb") as content:
            return cls(file, hashlib.file_digest(content, "sha256").hexdigest())


@dataclass(frozen=True)
class Image:
    """What differs between the images of one archive; the layers are shared."""

    reference: str
    entrypoint: Sequence[str]
    user: str = "0"
    env: Mapping[str, str] = field(default_factory=dict)


def write_layer(target: Path, content: Iterable[tuple[Path, str]], owner: int = 0) -> Layer:
    """A layer of files and folders, each under its path in the image, all owned by `owner`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as tar:
        for source, name in content:
            for file in [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]:
                place = name if file == source else f"{name}/{file.relative_to(source)}"
                _add(tar, file, place, owner)
    return Layer.of(target)


def write_images(target: Path, images: Sequence[Image], layers: Sequence[Layer]) -> None:
    """One archive that holds the images, and each of their layers once."""
    manifest = []
    with tarfile.open(target, "w") as tar:
        for layer in layers:
            entry = tarfile.TarInfo(f"{layer.digest}/layer.tar")
            entry.size = layer.file.stat().st_size
            with layer.file.open("rb") as content:
                tar.addfile(entry, content)
        for image in images:
            config = _config(image, layers)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(tar, name, config)
            parts = [f"{layer.digest}/layer.tar" for layer in layers]
            manifest.append({"Config": name, "RepoTags": [image.reference], "Layers": parts})
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())


def _config(image: Image, layers: Sequence[Layer]) -> bytes:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(image.entrypoint),
                "User": image.user,
                "Env": [f"{name}={value}" for name, value in {"PATH": path, **image.env}.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        }
    ).encode()


def _add(tar: tarfile.TarFile, file: Path, name: str, owner: int) -> None:
    entry = tar.gettarinfo(file, name)
    entry.uid = entry.gid = owner
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH
    if entry.isreg():
        with file.open("rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
