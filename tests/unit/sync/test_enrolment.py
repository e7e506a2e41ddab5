"""The enrolment code and the introduction: what is checked before a secret is told."""

import pytest

from appliance.manifests.keys import open_enrolment
from appliance.security.signing import SigningKey
from appliance.sync.enrolment import check_pin, introduction, parse_code
from appliance.sync.errors import BadEnrolmentCode
from tests.fakes.clock import START_NS

KEY = SigningKey(b"c" * 32)
CODE = f"clxe_ab12.geheim-und_lang.{KEY.key_id[:32]}"


def test_a_code_is_taken_apart() -> None:
    code = parse_code(f"  {CODE}\n")
    assert (code.code_id, code.secret, code.pin) == ("ab12", "geheim-und_lang", KEY.key_id[:32])
    assert code.told == "ab12.geheim-und_lang"
    assert "geheim" not in repr(code)
    check_pin(code, KEY.public)


@pytest.mark.parametrize(
    "text", ["", "clxe_", CODE[:-1], CODE + "0", CODE.replace("clxe", "clxj"), CODE.upper()]
)
def test_a_mistyped_code_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadEnrolmentCode) as caught:
        parse_code(text)
    assert "geheim" not in str(caught.value).lower()


def test_another_key_than_the_named_is_refused() -> None:
    with pytest.raises(BadEnrolmentCode, match="Nothing was sent"):
        check_pin(parse_code(CODE), SigningKey(b"x" * 32).public)


def test_the_introduction_shows_that_the_key_is_held() -> None:
    raw = introduction(
        appliance_id="apl_1", name="factory-7", epoch=1, wall_ns=START_NS, key=KEY, code_id="ab12"
    )
    document, key = open_enrolment(raw)
    assert key == KEY.public
    assert (document.appliance_id, document.name, document.code_id) == (
        "apl_1",
        "factory-7",
        "ab12",
    )
