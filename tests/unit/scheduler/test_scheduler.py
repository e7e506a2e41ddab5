"""Placement, queue, ejection and retry, one situation at a time."""

import pytest

from appliance.domain.ids import DeploymentId, ReplicaId
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import (
    Outcome,
    Placed,
    Queued,
    ReplicaView,
    Shed,
    ShedLate,
    ShedReason,
    Start,
    Ticket,
    TicketState,
)
from appliance.settings import Scheduling
from tests.fakes.replicas import DEPLOYMENT, target, ticket


def scheduler(*names: str, slots: int | None = 1, **settings: float) -> Scheduler:
    made = Scheduler(Scheduling(**settings))
    made.set_replicas(DEPLOYMENT, [target(name, slots=slots) for name in names], 0.0)
    return made


def place(scheduler: Scheduler, one: Ticket, now_s: float = 0.0) -> str:
    answer = scheduler.arrive(one, now_s)
    assert isinstance(answer, Placed), answer
    return answer.target.replica_id


def placed(scheduler: Scheduler, count: int, now_s: float = 0.0) -> list[Ticket]:
    tickets = [ticket() for _ in range(count)]
    for one in tickets:
        place(scheduler, one, now_s)
    return tickets


def fail(scheduler: Scheduler, now_s: float) -> None:
    one = ticket()
    place(scheduler, one, now_s)
    scheduler.finish(one, Outcome.ENGINE_FAILED, 0, now_s)


def replica(scheduler: Scheduler, name: str, now_s: float = 0.0) -> ReplicaView:
    (deployment,) = scheduler.view(now_s)
    return next(r for r in deployment.replicas if r.target.replica_id == name)


class TestPlacement:
    def test_equal_replicas_take_turns(self) -> None:
        site = scheduler("a", "b", "c", slots=8)
        places = []
        for now_s in range(6):
            one = ticket()
            places.append(place(site, one, now_s))
            site.finish(one, Outcome.OK, 10, now_s + 0.5)
        assert places == ["a", "b", "c", "a", "b", "c"]

    def test_the_fewest_outstanding_tokens_win(self) -> None:
        site = scheduler("a", "b", slots=8)
        place(site, ticket(tokens=1_000))
        assert [place(site, ticket(tokens=100)) for _ in range(3)] == ["b", "b", "b"]

    def test_a_replica_twice_as_fast_gets_twice_the_work(self) -> None:
        site = Scheduler(Scheduling())
        fast = target("fast", slots=64, tokens_per_s=100.0)
        site.set_replicas(DEPLOYMENT, [target("slow", slots=64, tokens_per_s=50.0), fast], 0.0)
        places = [place(site, ticket()) for _ in range(30)]
        assert 19 <= places.count("fast") <= 21

    def test_speed_is_learnt_from_finished_requests(self) -> None:
        site = scheduler("a", "b", slots=4)
        for n in range(40):
            one = ticket()
            name = place(site, one, float(n * 10))
            site.finish(one, Outcome.OK, 200, n * 10 + (1.0 if name == "a" else 8.0))
        assert replica(site, "a").tokens_per_s == pytest.approx(200)
        assert replica(site, "b").tokens_per_s < 40
        assert [place(site, ticket(), 999.0) for _ in range(3)] == ["a", "a", "a"]

    def test_the_agents_figure_is_where_learning_starts(self) -> None:
        site = Scheduler(Scheduling())
        site.set_replicas(DEPLOYMENT, [target("a", tokens_per_s=80.0)], 0.0)
        one = ticket()
        place(site, one)
        site.finish(one, Outcome.OK, 512, 512 / 40)
        assert 40 < replica(site, "a").tokens_per_s < 80

    def test_an_engine_of_unknown_slots_has_the_settings_bound(self) -> None:
        site = scheduler("a", slots=None, requests_per_replica_max=3)
        placed(site, 3)
        assert isinstance(site.arrive(ticket(), 0.0), Queued)

    def test_nothing_ready(self) -> None:
        site = Scheduler(Scheduling())
        shed = site.arrive(ticket(), 0.0)
        assert isinstance(shed, Shed)
        assert shed.reason is ShedReason.UNAVAILABLE
        site.set_replicas(DEPLOYMENT, [], 0.0, starting=1)
        shed = site.arrive(ticket(), 0.0)
        assert isinstance(shed, Shed)
        assert shed.reason is ShedReason.MODEL_LOADING
        assert 1 <= shed.retry_after_s <= 60


class TestQueue:
    def test_who_waits_starts_in_order_when_a_slot_is_free(self) -> None:
        site = scheduler("a")
        (running,) = placed(site, 1)
        first, second = ticket(), ticket()
        assert site.arrive(first, 0.0) == Queued(1)
        assert site.arrive(second, 0.0) == Queued(2)
        (start,) = site.finish(running, Outcome.OK, 10, 1.0)
        assert isinstance(start, Start)
        assert start.ticket is first
        (start,) = site.finish(first, Outcome.CLIENT_LEFT, 3, 2.0)
        assert isinstance(start, Start)
        assert start.ticket is second
        assert site.finish(second, Outcome.OK, 10, 3.0) == ()

    def test_a_full_queue_sheds_with_the_time_it_takes_to_drain(self) -> None:
        site = scheduler("a", queue_length_max=4)
        (running,) = placed(site, 1)
        waiting = [ticket() for _ in range(4)]
        for one in waiting:
            site.arrive(one, 0.0)
        # One start every 5 s.
        for n, one in enumerate(waiting[:3]):
            site.finish(running, Outcome.OK, 10, 5.0 * (n + 1))
            running = one
            site.arrive(ticket(), 5.0 * (n + 1))
        shed = site.arrive(ticket(), 15.0)
        assert shed == Shed(ShedReason.OVERLOADED, 25)

    def test_a_ticket_that_waits_too_long_is_shed(self) -> None:
        site = scheduler("a", queue_wait_s=30.0)
        placed(site, 1)
        early, late = ticket(), ticket()
        site.arrive(early, 0.0)
        site.arrive(late, 10.0)
        assert site.tick(29.9) == []
        (shed,) = site.tick(30.0)
        assert isinstance(shed, ShedLate)
        assert (shed.ticket, shed.reason) == (early, ShedReason.OVERLOADED)
        assert 1 <= shed.retry_after_s <= 60
        assert early.state is TicketState.DONE
        (shed,) = site.tick(41.0)
        assert isinstance(shed, ShedLate)
        assert shed.ticket is late

    def test_a_client_that_leaves_the_queue_is_passed_over(self) -> None:
        site = scheduler("a")
        (running,) = placed(site, 1)
        first, second = ticket(), ticket()
        site.arrive(first, 0.0)
        site.arrive(second, 0.0)
        assert site.cancel(first, 0.5) == ()
        (start,) = site.finish(running, Outcome.OK, 10, 1.0)
        assert isinstance(start, Start)
        assert start.ticket is second

    def test_no_queue_at_all(self) -> None:
        site = scheduler("a", queue_length_max=0)
        placed(site, 1)
        assert isinstance(site.arrive(ticket(), 0.0), Shed)

    def test_a_new_replica_takes_from_the_queue(self) -> None:
        site = scheduler("a")
        placed(site, 1)
        waiting = ticket()
        site.arrive(waiting, 0.0)
        (start,) = site.set_replicas(DEPLOYMENT, [target("a"), target("b")], 1.0)
        assert isinstance(start, Start)
        assert (start.ticket, start.target.replica_id) == (waiting, "b")

    def test_who_waits_when_all_replicas_go_is_told_why(self) -> None:
        site = scheduler("a", queue_wait_s=30.0)
        placed(site, 1)
        site.arrive(ticket(), 0.0)
        site.set_replicas(DEPLOYMENT, [], 1.0, starting=1)
        (shed,) = site.tick(31.0)
        assert isinstance(shed, ShedLate)
        assert shed.reason is ShedReason.MODEL_LOADING

    def test_deployments_do_not_wait_for_each_other(self) -> None:
        site = scheduler("a")
        other = DeploymentId("dep_2")
        site.set_replicas(other, [target("x", deployment=other)], 0.0)
        placed(site, 1)
        site.arrive(ticket(), 0.0)
        assert isinstance(site.arrive(ticket(deployment=other), 0.0), Placed)


class TestEjection:
    def test_failures_in_a_row_eject_for_a_while(self) -> None:
        site = scheduler("a", "b", slots=8, eject_after_failures=3, eject_s=5.0)
        failed = 0
        while failed < 3:
            one = ticket()
            if place(site, one) == "a":
                failed += 1
                site.finish(one, Outcome.ENGINE_FAILED, 0, 1.0)
            else:
                site.finish(one, Outcome.OK, 10, 1.0)
        assert replica(site, "a", 1.0).ejected_s == 5.0
        assert {place(site, ticket(), 5.9) for _ in range(8)} == {"b"}

    def test_on_return_one_request_tries_it_before_it_is_trusted(self) -> None:
        site = self.with_one_ejected()
        probe = ticket(tokens=10)
        assert place(site, probe, 6.0) == "a"
        assert [place(site, ticket(), 6.0) for _ in range(2)] == ["b", "b"]
        site.first_byte(probe, 6.5)
        assert place(site, ticket(), 6.5) == "a"
        site.finish(probe, Outcome.OK, 10, 7.0)
        assert replica(site, "a", 7.0).failures == 0

    def test_failing_on_return_doubles_the_time(self) -> None:
        site = self.with_one_ejected(eject_s_max=12.0)
        for began_s, lasts_s in ((6.0, 10.0), (16.0, 12.0), (28.0, 12.0)):
            probe = ticket()
            assert place(site, probe, began_s) == "a"
            site.finish(probe, Outcome.ENGINE_FAILED, 0, began_s)
            assert replica(site, "a", began_s).ejected_s == lasts_s

    def test_a_success_makes_the_next_ejection_short_again(self) -> None:
        site = self.with_one_ejected()
        probe = ticket()
        place(site, probe, 6.0)
        site.finish(probe, Outcome.OK, 10, 7.0)
        fail(site, 8.0)
        assert replica(site, "a", 8.0).ejected_s == 5.0

    def test_a_probe_whose_client_leaves_gives_way_to_the_next(self) -> None:
        site = self.with_one_ejected()
        probe = ticket()
        assert place(site, probe, 6.0) == "a"
        site.cancel(probe, 6.1)
        assert place(site, ticket(), 6.2) == "a"

    def test_failures_of_requests_that_ran_at_the_ejection_are_old_news(self) -> None:
        site = scheduler("a", "b", slots=32)
        on_a = [one for one in placed(site, 32) if one.target and one.target.replica_id == "a"]
        for one in on_a:
            site.finish(one, Outcome.ENGINE_FAILED, 0, 1.0)
        assert replica(site, "a", 1.0).ejected_s == 5.0

    def test_a_success_of_before_the_ejection_proves_nothing(self) -> None:
        site = scheduler("a", "b", slots=32)
        on_a = [one for one in placed(site, 32) if one.target and one.target.replica_id == "a"]
        for one in on_a[1:]:
            site.finish(one, Outcome.ENGINE_FAILED, 0, 1.0)
        site.finish(on_a[0], Outcome.OK, 10, 2.0)
        assert not replica(site, "a", 2.0).trusted

    def test_a_late_first_byte_of_before_the_ejection_proves_nothing(self) -> None:
        site = scheduler("a", "b", slots=32, eject_after_failures=1)
        early, failing = [one for one in placed(site, 4) if one.tried == (ReplicaId("a"),)]
        site.finish(failing, Outcome.ENGINE_FAILED, 0, 1.0)
        place(site, ticket(tokens=10_000), 1.0)
        probe = ticket()
        assert place(site, probe, 6.0) == "a"
        site.first_byte(early, 6.5)
        assert not replica(site, "a", 6.5).trusted

    def test_a_request_refused_by_the_engine_is_no_failure(self) -> None:
        site = scheduler("a", slots=8, eject_after_failures=1)
        one = ticket()
        place(site, one)
        site.finish(one, Outcome.REFUSED_BY_ENGINE, 0, 0.0)
        assert replica(site, "a").trusted

    def test_the_only_replica_is_used_although_it_is_ejected(self) -> None:
        site = scheduler("a", slots=8)
        for _ in range(3):
            fail(site, 1.0)
        assert not replica(site, "a", 1.0).trusted
        assert place(site, ticket(), 1.0) == "a"

    def test_tries_of_the_last_resort_do_not_prolong_the_ejection(self) -> None:
        site = scheduler("a", slots=8)
        for _ in range(10):
            fail(site, 1.0)
        assert replica(site, "a", 1.0).ejected_s == 5.0

    def test_when_all_are_ejected_the_one_that_returns_first_is_tried(self) -> None:
        site = scheduler("a", "b", slots=1, eject_after_failures=1)
        for began_s in (1.0, 2.0):
            fail(site, began_s)
        assert place(site, ticket(), 3.0) == "a"
        assert place(site, ticket(), 3.0) == "b"

    def test_a_success_of_the_last_resort_ends_the_ejection(self) -> None:
        site = scheduler("a", slots=8)
        for _ in range(3):
            fail(site, 1.0)
        one = ticket()
        place(site, one, 2.0)
        site.finish(one, Outcome.OK, 10, 3.0)
        assert replica(site, "a", 3.0).trusted

    def test_who_waits_starts_when_the_trial_succeeds(self) -> None:
        site = scheduler("a", "b", slots=2, eject_after_failures=1)
        fail(site, 1.0)
        placed(site, 2, 2.0)
        waiting = ticket()
        assert isinstance(site.arrive(waiting, 3.0), Queued)
        # The end of the ejection frees one place, the first byte of that request another.
        (start,) = site.tick(6.0)
        assert isinstance(start, Start)
        assert (start.ticket, start.target.replica_id) == (waiting, "a")
        second = ticket()
        assert isinstance(site.arrive(second, 6.0), Queued)
        (start,) = site.first_byte(waiting, 6.5)
        assert isinstance(start, Start)
        assert start.ticket is second

    def test_an_engine_that_answers_elsewhere_is_a_new_one(self) -> None:
        site = self.with_one_ejected()
        running = ticket()
        site.set_replicas(DEPLOYMENT, [target("a", slots=8, port=9), target("b", slots=8)], 2.0)
        assert replica(site, "a", 2.0).trusted
        assert place(site, running, 2.0) == "a"

    @staticmethod
    def with_one_ejected(**settings: float) -> Scheduler:
        """`a` ejected from 1.0 to 6.0; `b` well, and so busy that `a` would be preferred."""
        site = scheduler("a", "b", slots=8, eject_after_failures=1, eject_s=5.0, **settings)
        fail(site, 1.0)
        assert place(site, ticket(tokens=10_000), 1.0) == "b"
        assert not replica(site, "a", 1.0).trusted
        return site


class TestRetry:
    def test_another_replica_and_never_the_same(self) -> None:
        site = scheduler("a", "b", "c", slots=8)
        one = ticket()
        places = [place(site, one)]
        for _ in range(2):
            answer, effects = site.retry(one, 1.0)
            assert isinstance(answer, Placed)
            assert effects == ()
            places.append(answer.target.replica_id)
        assert sorted(places) == ["a", "b", "c"]
        answer, _ = site.retry(one, 1.0)
        assert isinstance(answer, Shed)
        assert answer.reason is ShedReason.TRIES_EXHAUSTED
        assert one.state is TicketState.DONE
        assert [r.running for d in site.view(1.0) for r in d.replicas] == [0, 0, 0]

    def test_no_more_tries_than_set(self) -> None:
        site = scheduler("a", "b", "c", slots=8, tries=2)
        one = ticket()
        place(site, one)
        assert isinstance(site.retry(one, 1.0)[0], Placed)
        assert isinstance(site.retry(one, 1.0)[0], Shed)

    def test_it_counts_against_the_replica(self) -> None:
        site = scheduler("a", "b", slots=8, eject_after_failures=1)
        one = ticket()
        name = place(site, one)
        site.retry(one, 1.0)
        assert not replica(site, name, 1.0).trusted

    def test_it_goes_before_all_others_when_the_other_replica_is_full(self) -> None:
        site = scheduler("a", "b")
        on_a, on_b = placed(site, 2)
        site.arrive(ticket(), 0.0)
        answer, effects = site.retry(on_a, 1.0)
        assert answer == Queued(1)
        assert [e.target.replica_id for e in effects if isinstance(e, Start)] == ["a"]
        (start,) = site.finish(on_b, Outcome.OK, 10, 2.0)
        assert isinstance(start, Start)
        assert (start.ticket, start.target.replica_id) == (on_a, "b")

    def test_it_is_shed_when_the_other_replica_goes_away(self) -> None:
        site = scheduler("a", "b")
        on_a, _ = placed(site, 2)
        site.retry(on_a, 1.0)
        (shed,) = site.set_replicas(DEPLOYMENT, [target("a")], 2.0)
        assert isinstance(shed, ShedLate)
        assert (shed.ticket, shed.reason) == (on_a, ShedReason.TRIES_EXHAUSTED)

    def test_of_a_ticket_that_is_done_nothing_comes(self) -> None:
        site = scheduler("a", "b")
        one = ticket()
        place(site, one)
        site.cancel(one, 0.5)
        answer, effects = site.retry(one, 1.0)
        assert isinstance(answer, Shed)
        assert effects == ()


class TestReplicasThatComeAndGo:
    def test_one_that_stays_keeps_its_statistics(self) -> None:
        site = scheduler("a", slots=8)
        place(site, ticket(tokens=70))
        site.set_replicas(DEPLOYMENT, [target("b", slots=8), target("a", slots=4)], 1.0)
        kept = replica(site, "a")
        assert (kept.running, kept.outstanding_tokens, kept.slots) == (1, 70, 4)

    def test_one_that_vanished_is_forgotten_when_its_tickets_have_ended(self) -> None:
        site = scheduler("a", "b", slots=8)
        one, two = placed(site, 2)
        site.set_replicas(DEPLOYMENT, [target("b", slots=8)], 1.0)
        assert {place(site, ticket(), 1.0) for _ in range(4)} == {"b"}
        site.finish(one, Outcome.OK, 10, 2.0)
        site.finish(two, Outcome.OK, 10, 2.0)
        site.set_replicas(DEPLOYMENT, [target("a", slots=8), target("b", slots=8)], 3.0)
        assert replica(site, "a").running == 0

    def test_one_that_comes_back_while_its_tickets_run_is_not_overfilled(self) -> None:
        site = scheduler("a", slots=2)
        placed(site, 2)
        site.set_replicas(DEPLOYMENT, [], 1.0, starting=1)
        site.set_replicas(DEPLOYMENT, [target("a", slots=2)], 2.0)
        assert isinstance(site.arrive(ticket(), 2.0), Queued)

    def test_a_deployment_that_is_gone_is_forgotten(self) -> None:
        site = scheduler("a")
        (running,) = placed(site, 1)
        waiting = ticket()
        site.arrive(waiting, 0.0)
        site.set_replicas(DEPLOYMENT, [], 1.0)
        site.finish(running, Outcome.OK, 10, 2.0)
        assert site.view(2.0) != ()
        site.cancel(waiting, 3.0)
        assert site.view(3.0) == ()

    def test_ending_twice_changes_nothing(self) -> None:
        site = scheduler("a", slots=8)
        (one,) = placed(site, 1)
        site.finish(one, Outcome.OK, 10, 1.0)
        site.finish(one, Outcome.ENGINE_FAILED, 10, 1.0)
        site.cancel(one, 1.0)
        assert (replica(site, "a").running, replica(site, "a").failures) == (0, 0)
        assert one.tried == (ReplicaId("a"),)
