"""Names at Ollama: one spelling each, and never another model's."""

import pytest

from tray_valet.providers.ollama_names import canonical_name, is_cloud_name


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        ("llama3", "llama3:latest"),
        ("llama3:latest", "llama3:latest"),
        ("llama3:8b", "llama3:8b"),
        ("llama3:8b-instruct-q4_K_M", "llama3:8b-instruct-q4_K_M"),
        ("library/llama3", "llama3:latest"),
        ("registry.ollama.ai/library/llama3:8b", "llama3:8b"),
        ("registry.ollama.ai/someone/model", "someone/model:latest"),
        ("someone/model", "someone/model:latest"),
        ("hf.co/user/model", "hf.co/user/model:latest"),
        ("hf.co/user/model:Q4_K_M", "hf.co/user/model:Q4_K_M"),
        ("https://hf.co/user/model:Q4_K_M", "hf.co/user/model:Q4_K_M"),
        ("localhost:5000/library/model", "localhost:5000/library/model:latest"),
        ("gpt-oss:120b-cloud", "gpt-oss:120b-cloud"),
    ],
)
def test_c1_every_name_has_one_spelling(asked: str, canonical: str) -> None:
    assert canonical_name(asked) == canonical
    assert canonical_name(canonical) == canonical


def test_c12_tags_are_never_dropped() -> None:
    assert canonical_name("qwen3:8b") != canonical_name("qwen3:70b") != canonical_name("qwen3")


@pytest.mark.parametrize(
    ("name", "is_cloud"),
    [
        ("gpt-oss:120b-cloud", True),
        ("gpt-oss:cloud", True),
        ("gpt-oss:120b:cloud", True),
        ("gpt-oss:20b", False),
        ("cloud:latest", False),
        ("my-cloud", False),
        ("host:5000/some/my-cloud", False),
    ],
)
def test_cloud_models_are_told_by_their_tag(name: str, is_cloud: bool) -> None:
    assert is_cloud_name(name) is is_cloud
