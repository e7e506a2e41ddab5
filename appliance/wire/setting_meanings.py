"""What each setting means, in the words of docs/SETTINGS.md: a test compares the two."""

from typing import Final

MEANINGS: Final = {
    "branding.file": "The signed file.",
    "branding.publisher": "A PEM file: the public key of who may have signed it.",
    "site.name": "What the site is called in status and records.",
    "site.region": (
        "The region of this appliance. An environment belongs to one region and may use only "
        "the deployments in it."
    ),
    "access.viewers": "Groups that may read.",
    "access.operators": (
        "Groups that may also suspend and resume, drain, scale, and exchange with the control"
        " plane."
    ),
    "access.admins": "Groups that may do everything.",
    "gateway.listen": "Where the endpoint listens. `cic serve --listen` wins. Port 0 takes any.",
    "gateway.body_bytes_max": (
        "A larger request body is answered 413, if its length was declared without reading it."
    ),
    "gateway.json_depth_max": "Deeper nested JSON is answered 400.",
    "gateway.messages_max": "Messages of one request.",
    "gateway.connections_max": "Client connections; one more is closed.",
    "gateway.connections_per_peer_max": "Of them, from one address.",
    "gateway.header_bytes_max": "A larger head is answered 431.",
    "gateway.upstream_connections_idle_max": (
        "Connections kept open to one replica between requests."
    ),
    "gateway.owned_by": "The `owned_by` of `GET /v1/models`.",
    "timeouts.head_s": (
        "From the first byte of a request, or the opening of a connection, to the end of the head."
    ),
    "timeouts.body_s": "From the head to the end of the body.",
    "timeouts.keepalive_s": "A kept connection on which nothing is asked.",
    "timeouts.connect_s": "To connect to an engine.",
    "timeouts.first_token_s": (
        "From the sending of the request to the engine's first piece of answer."
    ),
    "timeouts.token_gap_s": "Between two pieces of a stream.",
    "timeouts.total_s": "One request, from its head to its last byte.",
    "timeouts.write_s": "A client that takes nothing of what it is sent.",
    "timeouts.drain_s": "How long requests in flight may go on after SIGTERM.",
    "limits.requests_per_min": "Requests in any 60 s.",
    "limits.tokens_per_min": "Tokens in any 60 s.",
    "limits.tokens_per_day": "Tokens in any 24 h.",
    "limits.concurrency": "Requests at work at once.",
    "scheduler.queue_length_max": (
        "Requests that wait for a replica of one deployment; one more is answered 503. 0: "
        "nobody waits."
    ),
    "scheduler.queue_wait_s": "The longest wait in that queue.",
    "scheduler.tries": "Replicas tried for one request before its first byte.",
    "scheduler.eject_after_failures": (
        "Failures in a row after which a replica gets nothing for a while."
    ),
    "scheduler.eject_s": "How long, the first time. It doubles each time, up to `eject_s_max`.",
    "scheduler.eject_s_max": "The longest.",
    "scheduler.headroom_percent": (
        "Of what a deployment was measured to make, how much is never promised to reservations."
    ),
    "scheduler.requests_per_replica_max": (
        "Requests in flight at one replica whose engine does not tell its slots."
    ),
    "fleet.heartbeat_s": "Between two reports of an agent to which nothing happened.",
    "fleet.node_lost_s": "Without a report, a node's replicas count as gone.",
    "fleet.drain_s": (
        "How long requests of a replica that is replaced, moved or removed may go on; under "
        "notice, no longer than its machine lasts."
    ),
    "fleet.probe_s": "Between two probes of an external engine.",
    "manifests.window_s": (
        "How often new records are sealed into a signed manifest: 1 second to a day. `cic "
        "manifest seal` does it at once."
    ),
    "nodes.listen": (
        "`HOST:PORT` of the node API. Without it, it opens with the first `cic node token "
        "create`, on 8444 or any free port, and keeps that port."
    ),
    "nodes.advertise": (
        "`HOST` or `HOST:PORT` that nodes are told; without it the host's own address."
    ),
    "nodes.certificate_s": (
        "The life of a node's certificate. It is renewed at a moment between a half and two "
        "thirds of it."
    ),
    "nodes.rejoin_grace_s": "How long after its end a certificate still lets its node in again.",
    "nodes.copy_bytes_per_s": (
        "The most that all copies of models to nodes send together; without it as much as the"
        " network takes."
    ),
    "sync.mode": (
        "`offline`: no socket is opened and no name looked up for it; manifests go by bundle "
        "files alone."
    ),
    "sync.control_plane_url": (
        "Where the control plane is now; wins over the URL of the enrolment. https; http to a"
        " loopback address only."
    ),
    "sync.interval_s": "Between two exchanges when all is well; up to a tenth less, drawn by lot.",
    "sync.connect_s": "To connect to the control plane.",
    "sync.request_s": "One exchange, the looking up of the name included.",
    "sync.backoff_s": (
        "The longest wait after a first failure. It doubles each time up to `backoff_s_max`; "
        "the wait is drawn by lot below it."
    ),
    "sync.backoff_s_max": "The longest.",
    "sync.ca_file": (
        "A PEM file with the authorities that may vouch for the control plane's certificate, "
        "instead of the system's."
    ),
    "sync.proxy": "URL of a proxy for this alone. Proxies named in the environment are never used.",
    "burst.provider": "`skypilot`: `cic burst up` may lend machines.",
    "burst.python": "The Python interpreter that has SkyPilot; without it the appliance's own.",
    "burst.install": "Shell commands that install `cic` and the engines on a fresh machine.",
    "burst.disk_gb": "The disk of a machine, in GB. Models are copied to it.",
    "burst.poll_s": "Between two looks at what is lent.",
    "burst.token_s": "A machine must have joined within it; its token is good for no longer.",
    "backups.every_s": (
        "Between two backups that the appliance makes by itself. 0: only when asked."
    ),
    "backups.keep": ("How many are kept in its folder; older ones are removed after one was made."),
    "backups.folder": "Where they are written; without it `backups` in the home.",
    "alerts.gpu_margin_celsius": "A GPU this close to where it slows itself down is hot.",
    "alerts.limit_percent": "So much of a limit is used.",
    "alerts.queue_length": "So many requests wait for one deployment, and more than run.",
    "alerts.sync_lag_s": "A manifest has waited so long for its receipt.",
    "alerts.entitlement_days": "So few days are left until the entitlement's next stage.",
    "alerts.certificate_days": "So few days are left of the endpoint's certificate.",
    "alerts.disk_free_percent": "Less of a disk of the site is free.",
    "alerts.disk_free_bytes": "Or less than this; a quarter of it is an error.",
    "alerts.memory_free_percent": "Less of the appliance's host's memory is available.",
    "alerts.clock_offset_s": "The host's clock is off by more, or jumped by as much.",
    "alerts.backup_age_s": (
        "The newest backup is older; without it twice `backups.every_s`, and of a site that makes"
        " none by itself nothing is said."
    ),
    "notifications.when_offline": (
        'With `sync.mode = "offline"`: `silent` sends nothing at all; `local` only to private and'
        " loopback addresses, unix sockets included."
    ),
    "notifications.timeout_s": "One attempt, the looking up of the name included.",
    "notifications.digest_length": (
        "So many notifications that wait for a channel are told in one message."
    ),
    "notifications.queue_length_max": (
        "Notifications that wait for one channel; the oldest is dropped for one more, and counted."
    ),
    "notifications.retry_s": (
        "The longest wait after a first failure. It doubles each time up to `retry_s_max`; the wait"
        " is drawn by lot below it."
    ),
    "notifications.retry_s_max": "The longest.",
    "notifications.give_up_s": "What could not be told for so long is dropped, and counted.",
    "notifications.ca_file": (
        "A PEM file with the authorities that may vouch for receivers' certificates, instead of the"
        " system's."
    ),
    "metrics.listen": (
        "`HOST:PORT` to serve `/metrics` over TCP too. It is always on the admin socket."
    ),
    "log.level": "`debug`, `info`, `warning` or `error`. Logs are JSON lines on standard error.",
}
