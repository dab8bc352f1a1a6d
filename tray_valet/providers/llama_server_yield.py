"""Giving way on the CPU: which runners of a provider stand back while something else has the machine.

Decides: what a game's begin and end mean for runners that compute on the CPU. Must not: start or end one.
A runner that cannot be put back to normal (a usual user may not on Linux) is left as it is and started anew
at its next load.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tray_valet.core.errors import NotSupported
from tray_valet.core.ports import CpuPriority
from tray_valet.providers.llama_server_slot import Slot

_LOG = logging.getLogger(__name__)


def lower(slots: Iterable[Slot], priority: CpuPriority) -> None:
    """Put the CPU's runners among `slots` at idle priority. Quick."""
    for slot in slots:
        if slot.is_lowered or slot.runner is None or not slot.runner.is_running:
            continue
        if slot.definition is None or not slot.definition.cpu_only:
            continue
        try:
            for process in slot.runner.processes:
                priority.lower(process.pid)
        except NotSupported as error:
            _LOG.warning("%s does not give way on the CPU: %s", slot.model, error)
        else:
            slot.is_lowered = True


def restore(slots: Iterable[Slot], priority: CpuPriority) -> None:
    """Put those back that were lowered; those that were started with few threads stay as they are."""
    for slot in slots:
        if not slot.is_lowered or slot.has_few_threads or slot.runner is None or not slot.runner.is_running:
            continue
        try:
            for process in slot.runner.processes:
                priority.restore(process.pid)
        except NotSupported as error:
            _LOG.info("%s is started anew when it is asked for next: %s", slot.model, error)
        else:
            slot.is_lowered = False
