"""Every operation of the admin API, once. The server and the OpenAPI description both read this.

A route that makes something new or larger says `grows`: it is refused while the entitlement is
frozen. To read, to delete, to suspend and resume, to rotate a key that leaked, and whatever leads
out of that state is never refused.
"""

from typing import Any, Final

from appliance.admin import (
    backups,
    bursts,
    certificates,
    chatting,
    checks,
    deployments,
    engine_traces,
    gpus,
    joining,
    keys,
    manifests,
    model_packs,
    nodes,
    observing,
    own_logs,
    placement,
    reservations,
    site,
    site_settings,
    stream,
    sync,
    tenants,
)
from appliance.admin.calls import (
    Cascade,
    CascadeInTenant,
    Handler,
    InEnvironment,
    InTenant,
    Layers,
    NoQuery,
    Route,
    Since,
    UsageQuery,
)
from appliance.wire import admin as wire
from appliance.wire import fleet
from appliance.wire import sync as sync_wire
from appliance.wire.access import Me
from appliance.wire.gpu import GpuHistory, NodeGpu
from appliance.wire.node_tokens import (
    NodeCertificate,
    NodeRevoked,
    NodeToken,
    NodeTokenCreate,
    NodeTokenCreated,
)
from appliance.wire.placement import Explanation

_DOCUMENTS_BYTES_MAX: Final = 96 * 1024 * 1024  # the largest `.receipt`, as JSON


def _states(
    path: str, noun: str, answer: Any, suspend: Handler, resume: Handler, query: type = NoQuery
) -> tuple[Route, Route]:
    return (
        Route(
            *("POST", f"{path}/suspend", f"Suspend {noun}", suspend, answer, query),
            role="operator",
        ),
        Route(
            *("POST", f"{path}/resume", f"Resume {noun}", resume, answer, query), role="operator"
        ),
    )


_TENANTS: Final = (
    Route("GET", "/v1/tenants", "List tenants", tenants.list_tenants, list[wire.Tenant]),
    Route(
        *("POST", "/v1/tenants", "Create a tenant", tenants.create_tenant, wire.Tenant),
        body=wire.TenantCreate,
        status=201,
        grows=True,
    ),
    Route("GET", "/v1/tenants/{ref}", "Show a tenant", tenants.show_tenant, wire.Tenant),
    Route(
        *("PATCH", "/v1/tenants/{ref}", "Change a tenant", tenants.update_tenant, wire.Tenant),
        body=wire.TenantUpdate,
        grows=True,
    ),
    Route(
        *("DELETE", "/v1/tenants/{ref}", "Delete a tenant", tenants.delete_tenant, None),
        query=Cascade,
    ),
    *_states(
        *("/v1/tenants/{ref}", "a tenant", wire.Tenant),
        *(tenants.suspend_tenant, tenants.resume_tenant),
    ),
)

_ENVIRONMENTS: Final = (
    Route(
        *("GET", "/v1/environments", "List environments", tenants.list_environments),
        answer=list[wire.Environment],
        query=InTenant,
    ),
    Route(
        *("POST", "/v1/environments", "Create an environment", tenants.create_environment),
        answer=wire.Environment,
        body=wire.EnvironmentCreate,
        status=201,
        grows=True,
    ),
    Route(
        *("GET", "/v1/environments/{ref}", "Show an environment", tenants.show_environment),
        answer=wire.Environment,
        query=InTenant,
    ),
    Route(
        *("PATCH", "/v1/environments/{ref}", "Change an environment", tenants.update_environment),
        answer=wire.Environment,
        query=InTenant,
        body=wire.EnvironmentUpdate,
        grows=True,
    ),
    Route(
        *("DELETE", "/v1/environments/{ref}", "Delete an environment", tenants.delete_environment),
        answer=None,
        query=CascadeInTenant,
    ),
    *_states(
        *("/v1/environments/{ref}", "an environment", wire.Environment),
        *(tenants.suspend_environment, tenants.resume_environment, InTenant),
    ),
)

_KEYS: Final = (
    Route(
        *("GET", "/v1/keys", "List API keys", keys.list_keys, list[wire.Key]), query=InEnvironment
    ),
    Route(
        *("POST", "/v1/keys", "Create an API key; the secret is shown once", keys.create_key),
        answer=wire.KeyCreated,
        body=wire.KeyCreate,
        secrets=frozenset({"key"}),
        status=201,
        grows=True,
    ),
    Route(
        *("GET", "/v1/keys/{ref}", "Show an API key", keys.show_key, wire.Key),
        query=InEnvironment,
    ),
    Route(
        *("PATCH", "/v1/keys/{ref}", "Change an API key", keys.update_key, wire.Key),
        query=InEnvironment,
        body=wire.KeyUpdate,
        grows=True,
    ),
    Route(
        *("DELETE", "/v1/keys/{ref}", "Delete an API key", keys.delete_key, None),
        query=InEnvironment,
    ),
    *_states(
        *("/v1/keys/{ref}", "an API key", wire.Key),
        *(keys.suspend_key, keys.resume_key, InEnvironment),
    ),
    Route(
        *("POST", "/v1/keys/{ref}/rotate", "Give an API key a new secret", keys.rotate_key),
        answer=wire.KeyCreated,
        query=InEnvironment,
        body=wire.KeyRotate,
        secrets=frozenset({"key"}),
    ),
)

_DEPLOYMENTS: Final = (
    Route(
        *("GET", "/v1/deployments", "List deployments and their replicas"),
        *(deployments.list_deployments, list[fleet.Deployment]),
    ),
    Route(
        *("POST", "/v1/deployments", "Deploy a model", deployments.create_deployment),
        answer=fleet.Deployment,
        body=fleet.DeploymentCreate,
        status=201,
        grows=True,
    ),
    Route(
        *("GET", "/v1/deployments/{ref}", "Show a deployment and its replicas"),
        *(deployments.show_deployment, fleet.Deployment),
    ),
    Route(
        *("PATCH", "/v1/deployments/{ref}", "Change a deployment"),
        *(deployments.update_deployment, fleet.Deployment),
        body=fleet.DeploymentUpdate,
        grows=True,
        role="operator",
        operator_fields=frozenset({"replicas"}),
    ),
    Route(
        *("DELETE", "/v1/deployments/{ref}", "Delete a deployment"),
        *(deployments.delete_deployment, None),
    ),
    Route(
        *("GET", "/v1/deployments/{ref}/explain", "Why its replicas run where they do"),
        *(placement.explain_deployment, Explanation),
    ),
    *_states(
        *("/v1/deployments/{ref}", "a deployment", fleet.Deployment),
        *(deployments.suspend_deployment, deployments.resume_deployment),
    ),
)

_NODES: Final = (
    Route("GET", "/v1/nodes", "List nodes", nodes.list_nodes, list[fleet.Node]),
    Route(
        *("POST", "/v1/nodes", "Expect a node", nodes.create_node, fleet.Node),
        body=fleet.NodeCreate,
        status=201,
        grows=True,
    ),
    Route("GET", "/v1/nodes/{ref}", "Show a node", nodes.show_node, fleet.Node),
    Route(
        *("PATCH", "/v1/nodes/{ref}", "Change a node", nodes.update_node, fleet.Node),
        body=fleet.NodeUpdate,
        grows=True,
    ),
    Route("DELETE", "/v1/nodes/{ref}", "Forget a node", nodes.delete_node, None),
    *_states(*("/v1/nodes/{ref}", "a node", fleet.Node), *(nodes.suspend_node, nodes.resume_node)),
    Route(
        *("POST", "/v1/nodes/{ref}/drain", "Empty a node, its replicas elsewhere first"),
        *(nodes.drain_node, fleet.Node),
        body=fleet.NodeWishSet,
        role="operator",
    ),
    Route(
        *("POST", "/v1/nodes/{ref}/maintenance", "Stop what runs on a node"),
        *(nodes.maintain_node, fleet.Node),
        body=fleet.NodeWishSet,
        role="operator",
    ),
    Route(
        *("POST", "/v1/nodes/{ref}/notice", "Say when a node will be gone: it is emptied by then"),
        *(nodes.give_notice, fleet.Node),
        body=fleet.NodeNoticeGive,
        role="operator",
    ),
    Route(
        *("GET", "/v1/node-tokens", "List tokens with which machines become nodes"),
        *(joining.list_tokens, list[NodeToken]),
    ),
    Route(
        *("POST", "/v1/node-tokens", "Make a token; opens the node API"),
        *(joining.create_token, NodeTokenCreated),
        body=NodeTokenCreate,
        secrets=frozenset({"token", "command"}),
        status=201,
        grows=True,
    ),
    Route(
        *("POST", "/v1/node-tokens/{ref}/revoke", "Let nobody join with a token any more"),
        *(joining.revoke_token, NodeToken),
    ),
    Route(
        *("GET", "/v1/node-certificates", "List certificates of nodes"),
        *(joining.list_certificates, list[NodeCertificate]),
        query=joining.OfNode,
    ),
    Route(
        *("POST", "/v1/nodes/{ref}/revoke", "Deny every certificate of a node"),
        *(joining.revoke_node, NodeRevoked),
    ),
    Route("GET", "/v1/gpus", "List the GPUs of all nodes", gpus.list_gpus, list[NodeGpu]),
    Route(
        *("GET", "/v1/nodes/{ref}/gpu-history", "An hour and a day of a node's GPUs"),
        *(gpus.gpu_history, GpuHistory),
        query=gpus.OfGpu,
    ),
    Route("GET", "/v1/regions", "List regions", nodes.list_regions, list[fleet.Region]),
    Route(
        *("POST", "/v1/regions", "Create a region", nodes.create_region, fleet.Region),
        body=fleet.RegionCreate,
        status=201,
        grows=True,
    ),
    Route("GET", "/v1/regions/{ref}", "Show a region", nodes.show_region, fleet.Region),
    Route(
        *("PATCH", "/v1/regions/{ref}", "Change a region", nodes.update_region, fleet.Region),
        body=fleet.RegionUpdate,
        grows=True,
    ),
    Route("DELETE", "/v1/regions/{ref}", "Delete a region", nodes.delete_region, None),
)

_SITE: Final = (
    Route("GET", "/v1/me", "Who asks, and what it may do", site.show_me, Me),
    Route("GET", "/v1/status", "The site as it is now", site.status, wire.SiteStatus),
    Route(
        *("GET", "/v1/limits", "Limits in force and what is used of them", site.show_limits),
        answer=list[wire.LayerReport],
        query=Layers,
    ),
    Route(
        *("PUT", "/v1/limits", "Set limits of one layer", site.set_limits),
        answer=list[wire.LayerReport],
        body=wire.LimitsSet,
        grows=True,
    ),
    Route(
        *("GET", "/v1/usage", "Sums of the ledger", site.usage, list[wire.UsageRow]),
        query=UsageQuery,
    ),
    Route(
        *("GET", "/v1/ledger", "Records of the ledger, one a line", site.ledger, wire.LedgerRow),
        query=Since,
        lines=True,
    ),
    Route(
        *("GET", "/v1/ledger/verify", "Recompute the ledger's chain", site.verify_ledger),
        answer=wire.LedgerVerification,
    ),
    Route(
        *("GET", "/v1/audit", "Entries of the audit, one a line", site.audit, wire.AuditEntry),
        query=Since,
        lines=True,
    ),
    Route(
        *("GET", "/v1/audit/verify", "Recompute the audit's chain", site.verify_audit),
        answer=wire.AuditVerification,
    ),
)

_SYNC: Final = (
    Route(
        *("GET", "/v1/sync", "How the site stands with its control plane", sync.sync_status),
        answer=sync_wire.SyncStatus,
    ),
    Route(
        *("POST", "/v1/sync/now", "Exchange with the control plane now", sync.sync_now),
        answer=sync_wire.SyncReport,
        role="operator",
    ),
    Route(
        *("POST", "/v1/sync/enrol", "Enrol with a control plane", sync.enrol),
        answer=sync_wire.SyncStatus,
        body=sync_wire.Enrol,
    ),
    Route(
        *("POST", "/v1/sync/request", "The site's signed introduction", sync.make_request),
        answer=sync_wire.SignedRequest,
        body=sync_wire.RequestMake,
    ),
    Route(
        *("POST", "/v1/documents", "Take signed documents brought by hand", sync.bring),
        answer=sync_wire.SyncReport,
        body=sync_wire.DocumentsBring,
        body_bytes_max=_DOCUMENTS_BYTES_MAX,
        role="operator",
        operator_fields=frozenset({"envelopes"}),
    ),
    Route(
        *("GET", "/v1/entitlement", "The entitlement and its countdown", sync.show_entitlement),
        answer=sync_wire.EntitlementStatus,
    ),
    Route(
        *("POST", "/v1/entitlement", "Install an entitlement", sync.install_entitlement),
        answer=sync_wire.EntitlementStatus,
        body=sync_wire.EntitlementInstall,
    ),
)

ROUTES: Final = (
    *_SITE,
    *manifests.ROUTES,
    *_SYNC,
    *_TENANTS,
    *_ENVIRONMENTS,
    *_KEYS,
    *model_packs.ROUTES,
    *_DEPLOYMENTS,
    *engine_traces.ROUTES,
    *_NODES,
    *bursts.ROUTES,
    *reservations.ROUTES,
    *chatting.ROUTES,
    *site_settings.ROUTES,
    *own_logs.ROUTES,
    *checks.ROUTES,
    *certificates.ROUTES,
    *stream.ROUTES,
    *backups.ROUTES,
    *observing.ROUTES,
)
