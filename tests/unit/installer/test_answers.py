"""Answers: every field is checked, and every refusal names it and what it takes."""

from pathlib import Path

import pytest

from installer.answers import (
    FIELDS,
    Answers,
    example,
    from_json,
    load_answers,
    read_answers,
    to_json,
)
from installer.errors import BadAnswers


def test_the_example_has_every_field_and_is_the_defaults() -> None:
    assert read_answers(example().encode(), "example") == Answers()
    for one in FIELDS:
        assert one.meaning in example()
    assert {one.attribute for one in FIELDS} == set(to_json(Answers()))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("role = 'node'", ("role", "all, gateway")),
        ("role = ", ("not TOML",)),
        ("rol = 'all'", ("rol", "Is role meant?")),
        ("start = 'yes'", ("start", "true or false")),
        ("[site]\nname = ' x'", ("site.name", "no space at the ends")),
        ("[site]\nname = ''", ("site.name", "1 to 64")),
        ("[site]\nregion = ''", ("site.region", "empty")),
        ("[endpoint]\nlisten = '8080'", ("endpoint.listen", "HOST:PORT")),
        ("[endpoint]\nlisten = '::1:8080'", ("endpoint.listen", "HOST:PORT")),
        ("[endpoint]\nlisten = '0.0.0.0:70000'", ("endpoint.listen", "HOST:PORT")),
        ("[endpoint]\nlisten = '0.0.0.0:8443'", ("same port",)),
        ("[endpoint]\ntls = 'files'", ("endpoint.certificate and endpoint.key",)),
        ("[endpoint]\ncertificate = 'a'", ("endpoint.certificate is given",)),
        ("[endpoint]\nnames = 'a'", ("endpoint.names", "list")),
        ("[access]\nadmins = ['a b']", ("access.admins", "Unix group")),
        ("[tenant]\nname = 'a/b'", ("tenant.name", "letters, digits")),
        ("[tenant]\nname = ''\nkey_file = 'x'", ("tenant.key_file",)),
        ("role = 'gateway'\n[model]\nfile = 'x'", ("runs no engines",)),
        ("[model]\ngpus = -1", ("model.gpus", "not negative")),
        ("[model]\ngpus = true", ("model.gpus", "whole number")),
        ("[branding]\nfile = 'x'", ("belong together",)),
        ("[site.deep]\nname = 1", ("site.deep",)),
    ],
)
def test_what_is_wrong_is_named(text: str, names: tuple[str, ...]) -> None:
    with pytest.raises(BadAnswers) as refused:
        read_answers(text.encode(), "a.toml")
    assert "a.toml" in refused.value.message
    for name in names:
        assert name in refused.value.message
    assert refused.value.next_step
    assert refused.value.exit_code == 2


def test_paths_count_from_the_file_and_answers_outlive_a_restart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/answers.toml").write_text("[model]\nfile = 'tiny.gguf'\n")
    answers = load_answers("a/answers.toml", bytes, tmp_path)
    assert answers.model_file == str(tmp_path / "a/tiny.gguf")
    assert from_json(to_json(answers)) == answers
    assert from_json({**to_json(answers), "of_a_newer_version": 1}) == answers
    from_stdin = load_answers("-", lambda: b"[model]\nfile = 'x.gguf'", tmp_path)
    assert from_stdin.model_file == str(tmp_path / "x.gguf")
    with pytest.raises(BadAnswers, match="cannot be read"):
        load_answers("missing.toml", bytes, tmp_path)
