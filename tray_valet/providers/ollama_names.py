"""The names of models at Ollama.

Decides: the one spelling of a name, and whether a name is a cloud model's.
Must not: shorten a tag away or take one model for another: `m:8b` and `m:70b` are different models.

Facts: types/model/name.go (`ParseName`, `DisplayShortest`) and internal/modelref/modelref.go of Ollama.
"""

from __future__ import annotations

_DEFAULT_HOST = "registry.ollama.ai/"
_DEFAULT_NAMESPACE = "library/"
_DEFAULT_TAG = "latest"


def canonical_name(name: str) -> str:
    """Spell a name as Ollama's own answers do.

    `llama3` becomes `llama3:latest`; the default registry and namespace are left out, other registries'
    paths stay (`hf.co/user/model:Q4_K_M`).
    """
    name = name.strip()
    scheme, separator, rest = name.partition("://")
    if separator and scheme.isalnum():
        name = rest
    if name.lower().startswith(_DEFAULT_HOST):
        name = name[len(_DEFAULT_HOST) :]
    if name.lower().startswith(_DEFAULT_NAMESPACE) and name.count("/") == 1:
        name = name[len(_DEFAULT_NAMESPACE) :]
    # A colon before the last slash belongs to a registry's port, not to a tag.
    has_tag = name.rfind(":") > name.rfind("/")
    return name if has_tag or not name else f"{name}:{_DEFAULT_TAG}"


def is_cloud_name(name: str) -> bool:
    """Whether Ollama passes that model on to its cloud, so that it takes no memory here."""
    tag = name.rpartition(":")[2].lower() if ":" in name else ""
    return tag == "cloud" or (tag.endswith("-cloud") and "/" not in tag)
