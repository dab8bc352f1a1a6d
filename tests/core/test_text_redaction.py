"""Redaction: every form in which a key, a name or a home folder turns up in a log."""

import pytest

from tray_valet.core.text_redaction import HIDDEN, Identity, Redactor

KEY = "sk-live-abcdef0123456789"
REDACTOR = Redactor(
    Identity(user="mareike", homes=("/home/mareike",), host="bluebox", secrets=("correct horse", "t0ken"))
)


@pytest.mark.parametrize(
    "line",
    [
        f"using {KEY} now",
        "Authorization: Bearer hushhushhush",
        "Authorization: Basic aHVzaDpodXNo",
        "authorization=hushhushhush",
        '{"Authorization": "Bearer hushhushhush"}',
        "x-api-key: hushhushhush",
        "X-API-Key=hushhushhush",
        "Cookie: session=hushhushhush; theme=hushhushhush",
        "GET http://me:hushhushhush@nas.local/models",
        "https://hushhushhush@host/path",
        "GET /v1/models?key=hushhushhush&x=1",
        "GET /v1/models?api_key=hushhushhush",
        "HF_TOKEN=hushhushhush",
        'api_key: "hushhushhush"',
        '{"api_key": "hushhushhush"}',
        r'{"message": "sent {\"token\": \"hushhushhush\"}"}',
        "llama-server --api-key hushhushhush --port 1",
        "--api-key=hushhushhush",
        "password: hushhushhush",
        "AIzahushhushhushhushhushhushhushhushhus",
        "hf_hushhushhushhush",
        "eyJhushhush.eyJhushhush.hushhushhush",
    ],
)
def test_keys_in_every_form_are_taken_out(line: str) -> None:
    shown = REDACTOR.text(line)
    assert "hushhush" not in shown
    assert KEY not in shown
    assert HIDDEN in shown


def test_known_secrets_go_wherever_they_stand() -> None:
    assert REDACTOR.text("said “correct horse” and t0ken.") == f"said “{HIDDEN}” and {HIDDEN}."


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/home/mareike/models/q.gguf", "~/models/q.gguf"),
        ("/home/mareike", "~"),
        ("/home/mareike2/x", "/home/mareike2/x"),
        ("user mareike on bluebox", "user USER on HOST"),
        ("Mareike@BLUEBOX.fritz.box", "USER@HOST.fritz.box"),
        ("mareikes", "mareikes"),
    ],
)
def test_who_and_where_it_is(line: str, shown: str) -> None:
    assert REDACTOR.text(line) == shown


def test_windows_homes_in_all_their_spellings() -> None:
    redactor = Redactor(Identity(homes=(r"C:\Users\Mareike Q",)))
    for text in (r"C:\Users\Mareike Q\x", r"C:\\Users\\Mareike Q\\x", "C:/Users/Mareike Q/x"):
        assert redactor.text(text).startswith("~")


@pytest.mark.parametrize(
    "line",
    [
        "Hades was detected; RAM 87.3% >= 85.0% threshold",
        "keyring:openai",
        "max_tokens: 64, tokens per second",
        "http://127.0.0.1:11434/api/ps",
        '{"api_key": null}',
        "root",
    ],
)
def test_what_is_not_private_stays(line: str) -> None:
    assert REDACTOR.text(line) == line


def test_values_of_json_by_their_names() -> None:
    shown = REDACTOR.value(
        {
            "api_key": "abc",
            "reference": {"api_key": "keyring:openai"},
            "prompt": "Dear diary",
            "messages": [{"content": "Dear diary"}],
            "path": "/home/mareike/x",
            "list": ["/home/mareike/y", 3, None, True],
        }
    )
    assert shown == {
        "api_key": HIDDEN,
        "reference": {"api_key": "keyring:openai"},
        "prompt": HIDDEN,
        "messages": HIDDEN,
        "path": "~/x",
        "list": ["~/y", 3, None, True],
    }


def test_redacting_twice_changes_nothing_more() -> None:
    once = REDACTOR.text(f"Authorization: Bearer {KEY}; api_key={KEY} /home/mareike")
    assert REDACTOR.text(once) == once
