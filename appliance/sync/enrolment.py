"""How a site and its control plane come to know each other: the code, and the signed introduction.

A code is `clxe_<id>.<secret>.<pin>`: the pin is the beginning of the id of the control plane's key.
The site asks for that key first and compares; only then does the secret leave the site, so that
whoever stands in between learns nothing that a control plane would take.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from appliance.domain.clock import iso
from appliance.manifests.canonical import encode
from appliance.manifests.documents import ENROLMENT_TYPE, Enrolment
from appliance.manifests.envelope import sign
from appliance.security.signing import PublicKey, SigningKey
from appliance.sync.errors import BadEnrolmentCode

PIN_HEX: Final = 32  # 128 bits of the key's id
_CODE: Final = re.compile(
    rf"clxe_([A-Za-z0-9_-]{{1,64}})\.([A-Za-z0-9_-]{{1,128}})\.([0-9a-f]{{{PIN_HEX}}})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class EnrolmentCode:
    """A one-time code, taken apart. `repr` leaves the secret out."""

    code_id: str
    secret: str = field(repr=False)
    pin: str

    @property
    def told(self) -> str:
        """What the control plane is sent, once it has shown the right key."""
        return f"{self.code_id}.{self.secret}"


def parse_code(text: str) -> EnrolmentCode:
    """Raises BadEnrolmentCode, which does not repeat what was typed."""
    found = _CODE.fullmatch(text.strip())
    if found is None:
        raise BadEnrolmentCode(
            "The enrolment code is not complete or mistyped.",
            next_step="It has the form clxe_ID.SECRET.PIN; copy the whole line that"
            " `cic control-plane enroll` printed.",
        )
    return EnrolmentCode(*found.groups())


def check_pin(code: EnrolmentCode, key: PublicKey) -> None:
    """Raises BadEnrolmentCode unless `key` is the one that the code names."""
    if key.key_id[:PIN_HEX] != code.pin:
        raise BadEnrolmentCode(
            "The control plane at this URL does not have the key that the code names. Nothing was"
            " sent to it.",
            next_step="Check the URL and the code with the vendor: either is wrong, or somebody"
            " stands in between.",
        )


def introduction(
    *,
    appliance_id: str,
    name: str,
    epoch: int,
    wall_ns: int,
    key: SigningKey,
    code_id: str = "",
) -> bytes:
    """The signed Enrolment: an envelope's bytes. `code_id` is "" when it is carried by hand."""
    document = Enrolment(
        appliance_id=appliance_id,
        name=name,
        key_pem=key.public.pem,
        code_id=code_id,
        epoch=epoch,
        at=iso(wall_ns),
    )
    return sign(ENROLMENT_TYPE, encode(document), key).to_bytes()
