"""The admin API's messages about who is told of alerts.

GET    /v1/notification-channels                list[NotificationChannel]
POST   /v1/notification-channels                ChannelCreate -> ChannelCreated
GET    /v1/notification-channels/{ref}          NotificationChannel
DELETE /v1/notification-channels/{ref}
POST   /v1/notification-channels/{ref}/suspend  NotificationChannel
POST   /v1/notification-channels/{ref}/resume   NotificationChannel
POST   /v1/notification-channels/{ref}/test     ChannelTried
GET    /v1/notifications                        NotificationQueue
"""

from typing import Literal

import msgspec

from appliance.wire.admin_message import Message, State
from appliance.wire.stream import AlertSeverity

ChannelKind = Literal["webhook", "slack", "pagerduty", "email", "syslog"]
Transition = Literal["begun", "worse", "ended"]
# refused: the receiver said no, again and again · late: too old when its turn came
NotificationState = Literal["waiting", "sent", "refused", "late"]


class NotificationChannel(Message, frozen=True):
    """Where alerts are told. Secrets, and the paths of URLs that are secrets, are in no answer."""

    id: str
    name: str
    kind: ChannelKind
    destination: str  # "https://hooks.example", "smtp://mail.example:587": without its path
    severity: AlertSeverity  # this and worse
    state: State
    has_secret: bool
    user: str
    sender: str
    recipients: list[str]
    facility: str
    created_at: str
    waiting: int  # notifications in its queue
    sent: int  # since it was made
    failures: int  # attempts that failed, since it was made
    dropped: int  # notifications that were given up or pushed out of a full queue
    last_sent_at: str | None
    failing_since: str | None
    last_error: str
    next_attempt_at: str | None


class ChannelCreate(Message, frozen=True):
    """`url` by kind: https://… (webhook, slack, pagerduty) · smtp://HOST:PORT (STARTTLS),
    smtps://HOST:PORT, smtp+plain://HOST:PORT · udp://HOST:PORT, tcp://HOST:PORT, unix:///dev/log.

    `secret` by kind: what signs (webhook; null makes one, which is shown once), the routing key
    (pagerduty), the password of `user` (email).
    """

    name: str
    kind: ChannelKind
    url: str | None = None
    secret: str | None = None
    severity: AlertSeverity = "warning"
    user: str = ""
    sender: str = ""
    recipients: list[str] = msgspec.field(default_factory=list)
    facility: str = "daemon"
    allow_http: bool = False


class ChannelCreated(Message, frozen=True):
    """`secret`: the one that was made for a webhook, shown now and never again; else null."""

    channel: NotificationChannel
    secret: str | None


class ChannelTried(Message, frozen=True):
    """What became of a test. `detail`: what the receiver answered, or why it did not."""

    ok: bool
    took_ms: int
    detail: str
    next_step: str


class Notification(Message, frozen=True):
    """One alert's beginning, worsening or end on its way to one channel."""

    id: str
    channel: str
    alert: str
    transition: Transition
    severity: AlertSeverity
    text: str
    state: NotificationState
    at: str
    attempts: int
    next_attempt_at: str | None
    last_error: str


class NotificationQueue(Message, frozen=True):
    """Those that wait, and the last that were sent or given up, the newest first.

    `silent`: why nothing is sent at all, "" where something would be.
    """

    waiting: int
    dropped: int
    silent: str
    notifications: list[Notification]
