"""The whole path of billed tokens on one machine, told in the commands that a person types.

A site with a real model, a control plane and a Stripe double, all on loopback: completions, a
manifest, the wire, a receipt, meter events, the reconciliation; then the same with the wire cut and
a folder as the stick.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.demo_billing.vendor import ControlPlane, stripe_double
from tests.fakes.site import Key, Site, SiteFailure

MODELS = Path(sys.prefix) / "share" / "crosslogic" / "models"
MODEL = "smollm2-135m-instruct"
SITE, TENANT, CUSTOMER = "factory-7", "acme", "Acme Motors"
QUESTIONS = (
    "What is the capital of France? Answer in one short sentence.",
    "Name three colours.",
    "Say hello.",
)
LOAD_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tokens at each step of the path, and what the reconciliation said."""

    served: int
    served_by_wire: int
    ledger: int
    manifests: int
    by_wire: dict[str, Any]
    by_stick: dict[str, Any]


class Story:
    """Both sides, running. Every step says what it did."""

    def __init__(self, site: Site, vendor: ControlPlane, stick: Path, say: Say) -> None:
        self.site = site
        self.vendor = vendor
        self.stick = stick
        self.say = say
        self.served = 0

    def _site(self, *words: str, told: str = "") -> Any:
        """A command of the site's administrator, shown as it is typed."""
        self.say(f"$ cic {told or shlex.join(words)}")
        return self.site.cic(*words)

    def _vendor(self, *words: str) -> str:
        """A command of the vendor's operator, shown as it is typed; what it printed."""
        self.say(f"$ cic control-plane {shlex.join(words)}")
        return self.vendor.run(*words)

    def install(self) -> Key:
        """A site that serves, a control plane that bills, and both know each other."""
        self.vendor.run("init")
        self.vendor.start()
        self.say(f"vendor   a control plane at {self.vendor.url}, billing through the double")
        key = self.site.key(tenant=self.site.tenant(TENANT))
        body = {"name": MODEL, "engine": "llamacpp", "model": str(MODELS / f"{MODEL}.gguf")}
        self.site.admin("POST", "/v1/deployments", {**body, "context_tokens": 2_048})
        self.site.wait_ready(MODEL, LOAD_S)
        self.say(f"site     {self.site.base_url} serves {MODEL}")
        self.say(f"$ cic control-plane enroll {SITE}")
        code = self.vendor.json("enroll", SITE)["code"]
        self._site("sync", "enrol", self.vendor.url, code, told="sync enrol URL CODE")
        return key

    def ask(self, key: Key) -> None:
        """A few completions, counted by the answers themselves."""
        for question in QUESTIONS:
            body = {
                "model": MODEL,
                "max_tokens": 24,
                "temperature": 0,
                "messages": [{"role": "user", "content": question}],
            }
            status, _, answer = self.site.post("/chat/completions", body, key)
            if status != 200:
                raise SiteFailure(f"the endpoint answered {status}: {answer!r}")
            usage = _json(answer)["usage"]
            self.served += usage["prompt_tokens"] + usage["completion_tokens"]
        self.say(f"served   {self.served} tokens so far, as the answers say")

    def seal(self) -> None:
        sealed = self._site("manifest", "seal")
        self.say(f"sealed   {_short(sealed)}")

    def send(self) -> None:
        self._site("sync", "now")
        status = self._site("sync", "status")
        self.say(
            f"receipt  site is {status['state']}, {status['lag_manifests']} manifests without one"
        )

    def map_tenant(self) -> None:
        """The usage was accepted and held: nobody paid for this tenant."""
        self._vendor("customers", "add", CUSTOMER)
        self._vendor("tenants", "map", SITE, self.tenant_id, CUSTOMER, "--plan", "business")
        self.say(f"mapped   {TENANT} to {CUSTOMER}: what was held is billed")

    @property
    def tenant_id(self) -> str:
        rows: list[dict[str, str]] = self.site.admin("GET", "/v1/tenants")
        return next(row["id"] for row in rows if row["name"] == TENANT)

    def bill(self) -> None:
        self._vendor("stripe", "deliver")
        self.say("billed   the outbox is delivered as meter events")

    def reconcile(self) -> dict[str, Any]:
        """The report; the command fails where a drift is not explained."""
        self.say(self._vendor("reconcile"))
        self.say("")
        report: dict[str, Any] = self.vendor.json("reconcile")
        return report

    def carry(self) -> None:
        """The wire is cut: a folder carries manifests there and the receipt back."""
        self.vendor.stop()
        self.say("cut      the control plane takes no connection any more")
        exported = self._site("bundle", "export", "--to", str(self.stick))
        if not exported["safe_to_unplug"]:
            raise SiteFailure(f"the stick was not safe: {exported}")
        for bundle in sorted(self.stick.glob("*.usage")):
            self._vendor("import", str(bundle))
            self.say(f"carried  {bundle.name} to the control plane")
        self._vendor("export", "--to", str(self.stick))
        for receipt in sorted(self.stick.glob("*.receipt")):
            self._site("bundle", "import", str(receipt))
            self.say(f"carried  {receipt.name} back to the site")

    def counted(self) -> tuple[int, int]:
        """Tokens in the ledger, and in the manifests."""
        rows = self.site.cic("usage")
        manifests = self.site.cic("manifest", "list")
        return _tokens(rows), _tokens(manifests)

    def tell(self) -> Outcome:
        key = self.install()
        self.ask(key)
        self.seal()
        self.send()
        self.map_tenant()
        self.bill()
        by_wire, served_by_wire = self.reconcile(), self.served
        self.ask(key)
        self.seal()
        self.carry()
        self.bill()
        by_stick = self.reconcile()
        ledger, manifests = self.counted()
        self._site("manifest", "verify")
        self.say(f"counted  served {self.served} = ledger {ledger} = manifests {manifests}")
        return Outcome(self.served, served_by_wire, ledger, manifests, by_wire, by_stick)


@contextlib.contextmanager
def staged(folder: Path, say: Say) -> Iterator[Story]:
    """Everything that runs, made in `folder` and ended on the way out."""
    stick = folder / "stick"
    stick.mkdir()
    with stripe_double(folder) as stripe:
        say(f"stripe   a double of its API at {stripe['url']}")
        vendor = ControlPlane(folder, stripe)
        site = Site(folder, settings={"CIC_SITE_NAME": SITE}, with_agent=True)
        try:
            site.init()
            site.start()
            yield Story(site, vendor, stick, say)
        finally:
            site.stop()
            vendor.stop()


def _tokens(rows: list[dict[str, Any]]) -> int:
    return sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in rows)


def _json(raw: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(raw)
    return answer


def _short(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in row if name in {"seq", "requests", "sha256"})
