"""A `.env` file: the variables that a program is started with.

Decides: which names and values its text means. Must not: read the file, or use a value.
"""

from __future__ import annotations

from collections.abc import Mapping


def env_file_of(text: str) -> Mapping[str, str]:
    """The variables of a `.env` file: NAME=value lines, comments and quotes as dotenv has them."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, is_set, value = line.strip().removeprefix("export ").partition("=")
        if not is_set or name.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in ("'", '"') and value[:1] in value[1:]:
            value = value[1 : value.index(value[0], 1)]
        else:
            value = value.partition(" #")[0].rstrip()
        found[name.strip()] = value
    return found
