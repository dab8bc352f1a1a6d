"""What somebody is told who asks for a model that is not there."""

from __future__ import annotations

import pytest

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.errors import UnknownModel
from tray_valet.core.models import ModelRef
from tray_valet.web.relay.near_names import with_suggestion

CATALOG = tuple(
    CatalogEntry(
        name=name,
        ref=ModelRef(provider, model),
        status="off",
        size_bytes=0,
        context_length=None,
        created=0,
        is_alias=name != model,
    )
    for name, provider, model in (
        ("assistant", "local", "a/assistant"),
        ("assist-2", "local", "assist-2"),
        ("llama3:latest", "ollama", "llama3:latest"),
    )
)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("llama", "Did you mean “llama3:latest”?"),
        ("assistant", "Did you mean “assist-2”?"),  # an alias with no model behind it: not itself
        ("qwen", "GET /v1/models lists what there is."),
    ],
)
def test_what_was_probably_meant_is_never_what_was_asked_for(asked: str, meant: str) -> None:
    error = with_suggestion(UnknownModel("There is none.", param="model"), asked, CATALOG)
    assert error.remedy == meant
