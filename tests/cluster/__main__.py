"""`python -m tests.cluster up|down|env|images|status`: see `make help` for what each is for."""

import argparse
import shlex
import sys

from tests.cluster import access, images, local, paths, processes, programs
from tests.cluster.steps import ClusterError, note, step


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "env", "images", "programs", "status"])
    command = parser.parse_args().command
    try:
        return COMMANDS[command]()
    except ClusterError as failure:
        note(f"\n{failure}")
        return 1


def up() -> int:
    if access.is_local():
        local.up()
        return 0
    api = access.client()
    if not access.answers(api):
        raise ClusterError(f"The cluster of {access.kubeconfig()} doesn't answer. Start it, or set KUBECONFIG.")
    print(f"Using the cluster {api.url} of {access.kubeconfig()}. It has to have the images: `make images` says how.")
    return 0


def down() -> int:
    if access.is_local():
        local.down()
    return 0


def env() -> int:
    print(f"export KUBECONFIG={shlex.quote(str(access.kubeconfig()))} PATH={shlex.quote(str(paths.BIN))}:$PATH")
    return 0


def build_images() -> int:
    programs.build()
    archives = images.archives()
    with step(5, "Images") as current:
        current.cached = not images.build(archives)
    if access.is_local():
        if local.healthy():
            with step(8, "Images into the nodes") as current:
                current.cached = not local.load(archives)
    else:
        print("Load them into your cluster's nodes; with kind:")
        for archive in archives:
            print(f"  kind load image-archive {archive.file}")
    return 0


def build_programs() -> int:
    programs.build()
    return 0


def status() -> int:
    if not access.is_local():
        return 0 if access.answers(access.client()) else 1
    for name in local.DAEMONS:
        print(f"{name:24} {'running' if processes.running(name) else 'not running'}")
    healthy = local.healthy()
    print("The cluster is up." if healthy else "The cluster is not up: `make cluster` starts it.")
    return 0 if healthy else 1


COMMANDS = {
    "up": up,
    "down": down,
    "env": env,
    "images": build_images,
    "programs": build_programs,
    "status": status,
}

if __name__ == "__main__":
    sys.exit(main())
