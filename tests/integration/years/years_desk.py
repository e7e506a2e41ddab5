"""A site without a wire, its vendor, and Stripe's double, all in one year of the test's choosing.

Every step is the command that a person types, as a process of its own; Stripe's clock and theirs
are one. They believe to be in New York, whose clocks are set twice a year: nothing depends on it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.sealed_site import sealed_site
from tests.fakes.stripe.threaded import ThreadedDouble, double_in_thread
from tests.integration.years.moved import MovedClock
from tests.integration.years.years_site import S_NS, YearsSite

NAME = "factory-7"
LAG_S = 300  # of Stripe's sums


def at_s(text: str) -> int:
    """Seconds since 1970 of a moment in UTC, as `2028-02-29T23:58:00`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    stdout: str
    stderr: str
    code: int
    seconds: float
    rss_bytes: int  # the most it, or a process it started, ever held

    @property
    def told(self) -> Any:
        return json.loads(self.stdout) if self.stdout.strip() else None


class Programs:
    """The process that starts the commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.years.moved"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        """Raises json.JSONDecodeError when the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        with self._process:  # its input ends, and so does it
            pass


class Desk:
    """Both sides and the stick between them."""

    def __init__(
        self,
        folder: Path,
        now_s: int,
        stripe: ThreadedDouble,
        clock: MovedClock,
        programs: Programs,
    ) -> None:
        self._programs = programs
        self.folder = folder
        self.stripe = stripe
        self.clock = clock
        self.vendor_home = folder / "vendor"
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.site = YearsSite(sealed_site(folder, 0, start_ns=now_s * S_NS))
        self._url = ""

    # Commands

    def run(self, *arguments: object, ok: tuple[int, ...] = (0,)) -> Ran:
        environ = {name: text for name, text in os.environ.items() if not name.startswith("CIC")}
        double = self.stripe.double
        environ |= {
            "TZ": "America/New_York",
            "CICP_STRIPE_API_KEY": double.api_key,
            "CICP_STRIPE_API_BASE": double.base_url,
            "CICP_STRIPE_WEBHOOK_SECRET": double.webhook_secret,
        }
        if self._url:
            environ["CICP_DATABASE_URL"] = self._url
        out, err = self.folder / "command.stdout", self.folder / "command.stderr"
        order = {
            "argv": list(map(str, arguments)),
            "environ": environ,
            "shift_ns": self.clock.shift_ns,
            "stdout": str(out),
            "stderr": str(err),
        }
        told = self._programs.carry_out(order)
        done = Ran(out.read_text(), err.read_text(), **told)
        assert done.code in ok, (
            f"{arguments}: {done.code}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        return done

    def cic(self, *arguments: object) -> Ran:
        return self.run("--home", self.site.site.home.root, "--json", *arguments)

    def control(self, *arguments: object, ok: tuple[int, ...] = (0,)) -> Ran:
        home = ("control-plane", "--home", self.vendor_home, "--json")
        return self.run(*home, *arguments, ok=ok)

    # Steps

    def introduce(self, book: str, tenants: dict[str, str], database_url: str = "") -> None:
        """Init, prices, who pays, and the site's key; the vendor's key comes with a receipt."""
        self._url = database_url
        self.control("init")
        prices = self.folder / "prices.toml"
        prices.write_text(book)
        self.control("prices", "import", prices)
        pem = self.folder / "site.pem"
        pem.write_text(self.site.site.identity.key.public.pem)
        self.control("enroll", NAME, "--public-key", pem, "--valid-days", 3_650)
        for tenant, customer in tenants.items():
            self.control("customers", "add", customer)
            self.control("tenants", "map", NAME, f"ten_{tenant}", customer, "--plan", "business")

    def carry(self) -> tuple[Ran, Ran]:
        """The stick there, and the receipt back: what the export and the import came to."""
        exported = self.cic("bundle", "export", "--to", self.stick)
        assert exported.told["safe_to_unplug"]
        (file,) = exported.told["files"]
        taken = self.control("import", file["path"])
        assert taken.told["ok"], taken.told
        self.receipt()
        return exported, taken

    def receipt(self) -> None:
        (written,) = self.control("export", "--to", self.stick).told
        vendor = self.folder / "vendor.pem"
        vendor.write_text(self.control("key").told["pem"])
        came = self.cic("bundle", "import", written["file"], "--control-plane-key", vendor)
        assert came.told["ok"], came.told
        assert came.told["status"]["lag_manifests"] == 0

    def deliver(self) -> Ran:
        """Once what came in late has come to rest; then until nothing more can be done."""
        self.advance(180)
        done = self.control("stripe", "deliver", "--turns", 1_000)
        assert done.told["refused"] == done.told["failures"] == 0, done.told
        self.advance(2 * LAG_S)
        return done

    def reconcile(self) -> Ran:
        """The product's own report; it fails where a drift is not explained."""
        done = self.control("reconcile")
        assert done.told["sound"]
        assert done.told["total"]["drift"] == 0, done.told["total"]
        assert all(row["drift"] == 0 for row in done.told["rows"])
        return done

    # Time

    def advance(self, seconds: int) -> None:
        """Everybody's clock; then Stripe does what became due."""
        self.clock.shift_ns += seconds * S_NS
        self.stripe.run(self.stripe.double.settle())

    @property
    def now_s(self) -> int:
        return self.clock.wall_ns() // S_NS

    # What Stripe has

    def customers(self) -> dict[str, str]:
        """Stripe's ids to names."""
        every = self.stripe.double.account.objects["customer"].values()
        return {one["id"]: one["name"] for one in every}

    def metered(self) -> Counter[tuple[str, str, int]]:
        """(customer, model and kind as the event is called, hour) → tokens."""
        names, found = self.customers(), Counter[tuple[str, str, int]]()
        for (customer, event, hour_s), tokens in self.stripe.double.usage().items():
            found[names[customer], event.rpartition("_")[0].removeprefix("cl_"), hour_s] += tokens
        return found

    def late_items(self) -> list[dict[str, Any]]:
        every = self.stripe.double.account.objects["invoiceitem"].values()
        return [one for one in every if one["metadata"].get("late_key")]

    def calls(self) -> Counter[str]:
        """By method and path, ids left out."""
        return Counter(
            f"{one['method']} {'/'.join(_plain(part) for part in one['path'].split('/'))}"
            for one in self.stripe.double.requests
        )


def _plain(part: str) -> str:
    return "ID" if any(letter.isdigit() for letter in part[2:]) else part


@contextlib.contextmanager
def desk(now: str) -> Iterator[Desk]:
    """Everything, at that moment; taken away at the end."""
    now_s = at_s(now)
    clock = MovedClock(now_s * S_NS - time.time_ns())
    with (
        tempfile.TemporaryDirectory(prefix="years-") as folder,
        contextlib.closing(Programs()) as programs,
        double_in_thread(clock) as stripe,
    ):
        stripe.double.aggregation_lag_s = LAG_S
        stripe.double.latency_s = 0.0
        yield Desk(Path(folder), now_s, stripe, clock, programs)
