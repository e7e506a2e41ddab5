"""What time does by itself: periods end, drafts become final, errors are reported.

Source: page "How invoices work". Carried out before each call and whenever the clock is moved, in
the order of the moments at which it became due.
"""

from tests.fakes.stripe import drafts, meters
from tests.fakes.stripe.account import Account, Object


def catch_up(account: Account) -> None:
    """Do everything that is due by now."""
    while (due := _earliest(account)) is not None:
        moment, subject = due
        if subject["object"] == "subscription":
            drafts.cycle(account, subject, moment)
        else:
            drafts.finalize_now(account, subject, moment)
    meters.report_errors(account)


def _earliest(account: Account) -> tuple[int, Object] | None:
    due: list[tuple[int, str, Object]] = []
    for subscription in account.objects["subscription"].values():
        if subscription["status"] != "canceled" and not _gone(account, subscription):
            end = subscription["items"]["data"][0]["current_period_end"]
            due.append((end, subscription["id"], subscription))
    due += [
        (invoice["automatically_finalizes_at"], invoice["id"], invoice)
        for invoice in account.objects["invoice"].values()
        if invoice["status"] == "draft" and invoice["automatically_finalizes_at"] is not None
    ]
    passed = [one for one in due if one[0] <= account.now(one[2]["customer"])]
    if not passed:
        return None
    moment, _, subject = min(passed, key=lambda one: one[:2])
    return moment, subject


def _gone(account: Account, subscription: Object) -> bool:
    return bool(account.objects["customer"][subscription["customer"]].get("deleted"))
