"""Where things are: the project's own files, and the cache folder that everything made here goes to."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quiesce"
BIN = CACHE / "bin"
STAMPS = CACHE / "stamps"
LOGS = CACHE / "logs"
IMAGES = CACHE / "images"
BUILD = CACHE / "build"

# Of one running cluster. The nodes' folders hold the imported images and outlive it; the rest is made anew at each start.
CLUSTER = CACHE / "cluster"
NODES = CACHE / "nodes"
KUBECONFIG = CLUSTER / "admin.kubeconfig"
AUDIT_LOG = CLUSTER / "audit.log"
