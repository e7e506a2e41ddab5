"""A node's session as those see it who decide what runs where."""

from appliance.fleet.node_facts import Door, NodeFacts
from appliance.fleet.sessions import Session
from appliance.fleet.view import worst_part
from appliance.registry.nodes import NodeRow


def facts_of(row: NodeRow, session: Session | None, *, lost: bool, silent_s: float) -> NodeFacts:
    """`session` None: its agent has not said hello to this appliance."""
    if session is None:
        return NodeFacts(row=row, ready=False, lost=lost, silent_s=silent_s, heard=False)
    failed = _failed(session)
    return NodeFacts(
        row=row,
        ready=not lost and row.wish == "serving" and not failed,
        lost=lost,
        silent_s=silent_s,
        engines=frozenset(session.hello.engines),
        reports={report.replica_id: report for report in session.reports},
        door=_door(session),
        failed=failed,
        gpus=session.gpus,
        memory_bytes=session.hello.memory_bytes,
        score=100 if session.health is None else session.health.score,
        models=frozenset(session.models),
        engine_versions={str(kind): v for kind, v in session.hello.engine_versions.items()},
        driver=None if session.driver is None else session.driver.version,
    )


def _failed(session: Session) -> str:
    """Why nothing can run on a node, as its agent judges; "" when something can."""
    if session.health is None or session.health.state != "failed":
        return ""
    return worst_part(session.health) or "its health is 0"


def _door(session: Session) -> Door | None:
    if session.origin.host is None:
        return None
    return Door(session.node_id, session.origin.host, session.door_port)
