"""The fields of a query, as the control API's questions and commands take them.

Decides: what is a well-formed one. Must not: know what it is for.
"""

from __future__ import annotations

from starlette.requests import Request

from tray_valet.core.errors import InvalidValue
from tray_valet.core.models import check_model_name


def provider_of(request: Request) -> str | None:
    """The provider that `?provider=` names; None where it names none. Raises InvalidValue."""
    names = request.query_params.getlist("provider")
    if not names:
        return None
    if len(names) > 1 or not names[0]:
        raise InvalidValue("Name one provider.", param="provider")
    return check_model_name(names[0], param="provider")


def whole_number_of(request: Request, name: str, *, usual: int, most: int) -> int:
    """A whole number from 1 to `most`; `usual` where the field is missing. Raises InvalidValue."""
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
        raise InvalidValue(
            f"{name}: “{text[:40]}” is no whole number in its range.", remedy=f"Use 1 to {most}.", param=name
        )
    return int(text)
