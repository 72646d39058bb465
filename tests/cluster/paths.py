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

# The running cluster, recreated at each start, and what outlives it: the images that the nodes have imported.
CLUSTER = CACHE / "cluster"
NODES = CACHE / "nodes"
KUBECONFIG = CLUSTER / "admin.kubeconfig"
AUDIT_LOG = CLUSTER / "audit.log"
