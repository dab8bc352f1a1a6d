"""Every operation of the control API.

Decides: their order. Must not: know how a description is built (`control_openapi.py`); tests hold the table
against the routes and their answers.
"""

from __future__ import annotations

from tray_valet.web.openapi_models import MODELS, PROVIDERS
from tray_valet.web.openapi_operation import Op
from tray_valet.web.openapi_settings import PROGRAM, SETTINGS
from tray_valet.web.openapi_state import HOLDS, LOOK

OPERATIONS: tuple[Op, ...] = (*LOOK, *HOLDS, *MODELS, *PROVIDERS, *SETTINGS, *PROGRAM)
