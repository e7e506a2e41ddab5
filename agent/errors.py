"""Errors of the agent.

AgentError
├── AgentRunning         another agent of this home holds its lock
├── ApplianceAway        nobody answers on the socket, or not in time
├── ApplianceRefused     it answered, and said no
├── WrongSite            the CA at the other end is not the one the token names
├── BadToken             what was given is no token
├── IdentityBroken       the certificate of this node, or its key, cannot be read
├── ParentGone           the process this agent was to live with has ended
├── UnknownReplica       it is not one of this node's
├── EngineUnfit          a process that runs and cannot do its work
├── ModelAway            a model cannot be copied to this node now
├── MetadataAway         the cloud's metadata service does not answer, or not in time
└── MetadataStrange      it answered something that is no answer
"""

from appliance.domain.errors import CrossLogicError


class AgentError(CrossLogicError):
    code = "agent_error"


class AgentRunning(AgentError):
    code = "agent_running"


class ApplianceAway(AgentError):
    code = "appliance_away"


class ApplianceRefused(AgentError):
    """`refusal` is the code the appliance gave."""

    code = "appliance_refused"

    def __init__(self, refusal: str, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class WrongSite(AgentError):
    code = "wrong_site"


class BadToken(AgentError):
    code = "bad_token"


class IdentityBroken(AgentError):
    code = "identity_broken"


class ParentGone(AgentError):
    code = "parent_gone"


class UnknownReplica(AgentError):
    code = "unknown_replica"


class EngineUnfit(AgentError):
    code = "engine_unfit"


class MetadataAway(AgentError):
    code = "metadata_away"


class MetadataStrange(AgentError):
    code = "metadata_strange"


class ModelAway(AgentError):
    code = "model_away"
