"""Progress output: numbered steps with their times, child programs with their logs, stamps of what is done."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import paths

# setup.sh counts the first two.
TOTAL = 8
TAIL_LINES = 25


class ClusterError(Exception):
    """Something that a person has to see to; the message says what to do next."""


@dataclass
class Step:
    cached: bool = False


@contextmanager
def step(number: int, title: str) -> Iterator[Step]:
    """Prints `[number/TOTAL] title ... 12 s`, or `cached` if the block says so."""
    started = time.monotonic()
    print(f"[{number}/{TOTAL}] {title} ... ", end="", flush=True)
    current = Step()
    try:
        yield current
    except BaseException:
        print("failed", flush=True)
        raise
    print("cached" if current.cached else f"{time.monotonic() - started:.0f} s", flush=True)


def run(
    *command: str | Path, log: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, advice: str = ""
) -> None:
    """Runs a program with its output in a log file, and shows the end of that file only if the program fails."""
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    file = paths.LOGS / f"{log}.log"
    with file.open("w") as out:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    if done.returncode:
        raise ClusterError(
            f"{Path(command[0]).name} ended with {done.returncode}.\n{tail(file)}{advice and chr(10) + advice}"
        )


def output(*command: str | Path) -> str:
    """The standard output of a short program that has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def tail(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines()[-TAIL_LINES:] if file.exists() else []
    return "\n".join(["  | " + line for line in lines] + [f"The whole log: {file}"])


def fingerprint(*inputs: str | Path) -> str:
    """A digest of texts and of the files (and of all files in the folders) named; equal inputs, equal digest."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(item.encode() + b"\0")
            continue
        for file in sorted(item.rglob("*")) if item.is_dir() else [item]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(item.parent)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def is_done(name: str, stamp: str) -> bool:
    file = paths.STAMPS / name
    return file.exists() and file.read_text() == stamp


def mark_done(name: str, stamp: str) -> None:
    paths.STAMPS.mkdir(parents=True, exist_ok=True)
    (paths.STAMPS / name).write_text(stamp)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
