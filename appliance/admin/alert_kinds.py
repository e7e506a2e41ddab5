"""Every kind of alert: how long its cause lasts before it is one, what it means, what to do.

docs/ALERTS.md has the same table; a test compares the two.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class AlertKind:
    """`after_s`: the cause lasts so long before it is an alert; a moment is none."""

    after_s: float
    symptom: str
    cause: str
    fix: str


ALERT_KINDS: Final = {
    "node.unreachable": AlertKind(
        15.0,
        "A node is not heard of. Its replicas count as gone; their requests go to others.",
        "The machine is off, the network is cut, or its agent does not run.",
        "On the node: `systemctl status crosslogic-agent`, then the network to the appliance.",
    ),
    "node.failed": AlertKind(
        15.0,
        "A node's agent runs and says that no engine can run there.",
        "No driver, no engine, or a disk that cannot be written; `cic node show` says which.",
        "Mend what it names; the node comes back by itself.",
    ),
    "node.notice": AlertKind(
        0.0,
        "A machine will be taken away at the time that is told; it is being emptied.",
        "A cloud's notice, or an administrator's (`cic node drain --notice`).",
        "Nothing, where other nodes have room: `cic deployment list`.",
    ),
    "node.driver": AlertKind(
        60.0,
        "A node's GPU driver does not answer as it should.",
        "The driver's library and module differ after an update, or the driver hangs.",
        "Reboot the node after a driver update: `cic node drain NODE` first.",
    ),
    "node.fault": AlertKind(
        0.0,
        "A machine beside its GPUs: memory, processor, network or disk.",
        "The fault's code says which; GPUS.md lists them.",
        "What the alert says. Agents judge faults over time, so none waits here.",
    ),
    "gpu.fault": AlertKind(
        0.0,
        "A GPU reports an error, is slowed down, or is gone.",
        "The fault's code says which; GPUS.md lists them.",
        "What the alert says. Agents judge faults over time, so none waits here.",
    ),
    "gpu.hot": AlertKind(
        60.0,
        "A GPU is close to the temperature at which it slows down.",
        "Air, fans or dust; a neighbour that heats the room.",
        "Look at the machine's air and fans; `cic gpu history NODE` shows since when.",
    ),
    "deployment.failed": AlertKind(
        15.0,
        "A deployment serves nobody; its clients get 503.",
        "Its engines do not start, or the node they need is away.",
        "`cic deployment show NAME` says why, `cic deployment logs NAME` what the engine said.",
    ),
    "deployment.degraded": AlertKind(
        60.0,
        "Fewer replicas are ready than wanted; the others carry the load.",
        "An engine starts again, or there is no room for it.",
        "`cic deployment explain NAME` says why a replica has no place.",
    ),
    "deployment.queue": AlertKind(
        60.0,
        "More requests wait for a deployment than run.",
        "More is asked than its replicas make, or replicas are gone.",
        "`cic deployment scale NAME N`, or limits for who asks most: `cic top --once`.",
    ),
    "replica.ejected": AlertKind(
        30.0,
        "An engine failed several requests in a row and gets none for now.",
        "It is out of memory, hangs, or its node is overloaded.",
        "`cic deployment logs NAME`; it is tried again by itself.",
    ),
    "reservation.slipping": AlertKind(
        0.0,
        "A tenant got less than it was promised, two minutes in a row.",
        "Replicas are gone or slower than when they were measured.",
        "`cic reservation show ID`, then the deployment's replicas.",
    ),
    "reservation.short": AlertKind(
        60.0,
        "More is promised than the ready replicas make.",
        "Replicas are gone since the promise was given.",
        "Bring replicas back, or end promises: `cic reservation capacity`.",
    ),
    "limit.full": AlertKind(
        60.0,
        "A tenant, an environment or the site has used most of a limit.",
        "It asks more than it was given; what is beyond is answered 429.",
        "`cic limit show`, and raise it if that is meant: `cic limit set`.",
    ),
    "ledger.unwritable": AlertKind(
        0.0,
        "Nothing can be written into the ledger: requests are refused.",
        "The disk is full, read-only or broken.",
        "`cic doctor`, then the disk of the home; it goes on by itself.",
    ),
    "ledger.seal": AlertKind(
        60.0,
        "Records are not sealed into manifests; they wait, none is lost.",
        "The disk, or secrets that do not belong to this ledger.",
        "`cic manifest seal` says what is wrong.",
    ),
    "sync.alarm": AlertKind(
        0.0,
        "The control plane has another history of this site than the site.",
        "A backup was restored, or a copy of this site runs elsewhere.",
        "`cic sync status` says what to do; ask the vendor for a new epoch.",
    ),
    "sync.lag": AlertKind(
        0.0,
        "Manifests wait long for the control plane.",
        "The line is cut, or nobody carries the stick.",
        "`cic sync now`, or `cic bundle export --to FOLDER`.",
    ),
    "entitlement.active": AlertKind(
        0.0,
        "The entitlement is good and soon comes to its next stage.",
        "No newer one was installed and no receipt prolonged it.",
        "`cic sync now`, or ask for a new one: `cic entitlement install FILE`.",
    ),
    "entitlement.warning": AlertKind(
        0.0,
        "The entitlement ends soon.",
        "As above.",
        "As above.",
    ),
    "entitlement.grace": AlertKind(
        0.0,
        "The entitlement has ended; all goes on for the days of grace.",
        "As above.",
        "As above, before the grace ends.",
    ),
    "entitlement.frozen": AlertKind(
        0.0,
        "Nothing new can be made; what runs goes on.",
        "The grace has ended, or the control plane froze the site.",
        "`cic entitlement show` says how to get out.",
    ),
    "entitlement.throttled": AlertKind(
        0.0,
        "The whole site is held to a few tokens a second.",
        "The site is frozen for long.",
        "`cic entitlement show` says how to get out.",
    ),
    "entitlement.exceeded": AlertKind(
        0.0,
        "The site is larger than its entitlement.",
        "GPUs, reserved capacity or models beyond what is named in it.",
        "What the alert says.",
    ),
    "certificate.ending": AlertKind(
        0.0,
        "A certificate ends soon.",
        "Nobody renewed it.",
        "What the alert says; `cic certificate list` has them all.",
    ),
    "certificate.expired": AlertKind(
        0.0,
        "A certificate has ended: who checks it does not connect.",
        "Nobody renewed it.",
        "What the alert says, at once.",
    ),
    "disk.full": AlertKind(
        30.0,
        "A disk of the site is nearly full. When it is, requests are refused.",
        "Models, backups or logs grew.",
        "`cic model gc`, old backups, logs; or a larger disk.",
    ),
    "memory.low": AlertKind(
        60.0,
        "The appliance's host has little memory left; the system may end programs.",
        "Engines or something else on this host take it.",
        "`ps aux --sort -rss`; fewer engines here, or more memory.",
    ),
    "clock.jump": AlertKind(
        0.0,
        "The host's clock was set ahead or back while the site ran.",
        "A time service stepped it, somebody set it, or the host slept.",
        "`timedatectl status`; records keep the times they have.",
    ),
    "clock.offset": AlertKind(
        300.0,
        "Nothing keeps the host's clock right, or it is off.",
        "No time service runs, or it does not reach its server.",
        "Run chrony or systemd-timesyncd with a time server of the site.",
    ),
    "backup.failed": AlertKind(
        0.0,
        "The last backup failed; the next try is within the hour.",
        "No room or no right in its folder.",
        "`cic backup create` says what is wrong.",
    ),
    "backup.late": AlertKind(
        0.0,
        "The newest backup is old.",
        "The site is stopped or started again more often than it makes one, or its folder is away.",
        "`cic backup create`, then `cic backup list`.",
    ),
    "backup.never": AlertKind(
        0.0,
        "Of this site there is no backup.",
        "None was ever made in the folder of the settings, or somebody emptied it.",
        "`cic backup create`, then `cic backup key --to FILE`.",
    ),
    "backup.key": AlertKind(
        0.0,
        "Nobody can open the backups when this home is lost.",
        "The backup key was never copied out.",
        "`cic backup key --to FILE`; keep it elsewhere.",
    ),
    "notification.failing": AlertKind(
        60.0,
        "A notification channel takes nothing; its notifications wait. It is told on the others.",
        "The receiver is down, its address or secret changed, or the network forbids it.",
        "`cic notification channel test NAME` says what the receiver answers.",
    ),
}

_OF_FAULTS: Final = {"node": "node.fault", "gpu": "gpu.fault"}


def kind_of(alert_id: str) -> str:
    """The key in ALERT_KINDS of an alert by its id, `<subject>:<ref>:<what>`."""
    subject, _, rest = alert_id.partition(":")
    kind = f"{subject}.{rest.rpartition(':')[2]}"
    return kind if kind in ALERT_KINDS else _OF_FAULTS.get(subject, kind)


def after_s(alert_id: str) -> float:
    """How long a cause lasts before it is an alert."""
    kind = ALERT_KINDS.get(kind_of(alert_id))
    return 0.0 if kind is None else kind.after_s
