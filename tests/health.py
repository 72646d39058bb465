"""How other tools rate an object: kstatus and Flux, by their own code, and Argo CD, by the script in the docs."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest

from tests.cluster import paths

Object = Mapping[str, Any]
PROGRAM = paths.BIN / "kstatus"
HEALTH_LUA = Path(__file__).parents[1] / "docs" / "argocd" / "health.lua"


def kstatus(objects: Sequence[Object], expressions: Mapping[str, str] | None = None) -> list[str]:
    """`Current`, `InProgress`, `Failed` or `Terminating` for each; with Flux's healthCheckExprs by those."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built: `make setup` does")
    question = json.dumps({"objects": list(objects), "expressions": expressions})
    done = subprocess.run([PROGRAM], input=question, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


def argo_cd(of: Object) -> tuple[str, str]:
    """Argo CD's health status and message: a script of Lua 5.1 with the object as the global `obj`."""
    lua = lupa.lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.globals().obj = lua.table_from(of, recursive=True)
    health = lua.execute(HEALTH_LUA.read_text())
    return health.status, health.message
