"""Every operation of the control API.

Decides: their order. Must not: know how a description is built (`description.py`); tests hold the table
against the routes and their answers.
"""

from __future__ import annotations

from tray_valet.web.control.openapi.models import MODELS, PROVIDERS
from tray_valet.web.control.openapi.operation import Op
from tray_valet.web.control.openapi.settings import PROGRAM, SETTINGS
from tray_valet.web.control.openapi.state import HOLDS, LOOK

OPERATIONS: tuple[Op, ...] = (*LOOK, *HOLDS, *MODELS, *PROVIDERS, *SETTINGS, *PROGRAM)
