"""The environment of programs that are not ours, so that nothing of a packed program reaches them.

Decides: which variables are put back as they were. Must not: read or change the system's environment.
Source: PyInstaller's manual on LD_LIBRARY_PATH_ORIG.
"""

from __future__ import annotations

from collections.abc import Mapping


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for programs that are not ours.

    A program packed by PyInstaller has its own libraries first in LD_LIBRARY_PATH; they must not reach
    llama-server.
    """
    env = dict(environ)
    original = env.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        env["LD_LIBRARY_PATH"] = original
        if not original:
            del env["LD_LIBRARY_PATH"]
    elif "_PYI_APPLICATION_HOME_DIR" in env:  # packed, and there was none before
        env.pop("LD_LIBRARY_PATH", None)
    return env
