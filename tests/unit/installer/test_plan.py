"""The plan: the same words for the same answers and facts, and what is done is left out."""

from dataclasses import replace

from installer.answers import Answers
from installer.plan import Found, as_json, as_text, plan_install

BARE = Found(version="1.2.0", systemd=True, units=True)


def test_the_plan_of_a_bare_server_reads_so() -> None:
    steps = plan_install(Answers(site_name="here"), BARE)
    assert as_text(steps, BARE) == (
        """\
Version 1.2.0 is going to be installed:

  1.      Make the system accounts crosslogic and crosslogic-agent, without a password and without a shell.
  2.      Unpack version 1.2.0 into /opt/crosslogic/1.2.0.
  3.      Make /etc/crosslogic, /var/lib/crosslogic, /var/lib/crosslogic-agent, /var/log/crosslogic and /run/crosslogic, closed to others.
  4.      Write /etc/crosslogic/config.toml: site "here", endpoint on 0.0.0.0:8080.
  5.      Make the site: secrets, the site's CA, an empty registry and ledger.
  6.      Make a certificate by the site's CA for the names and addresses of this host. TLS listens on 0.0.0.0:8443.
  7.      Point /opt/crosslogic/current to 1.2.0, and link cic and cic-installer into /usr/bin.
  8.      Put the units of systemd into /usr/lib/systemd/system, and enable them.
  9.      Start the services and wait until the endpoint answers.
 10.      Make the tenant default with the environment prod.
 11.      Make the API key first and show it once.

Each step can be undone: cic-installer uninstall, or install --undo before the end."""  # noqa: E501
    )


def _names(answers: Answers, found: Found) -> list[str]:
    return [step.name for step in plan_install(answers, found)]


def test_answers_decide_which_steps_there_are() -> None:
    gateway = _names(Answers(role="gateway", tenant_name="", endpoint_tls="off"), BARE)
    assert gateway == [
        "accounts",
        "tree",
        "folders",
        "settings",
        "site",
        "commands",
        "units",
        "start",
    ]
    offline = _names(Answers(start=False), replace(BARE, model="m.gguf"))
    assert not {"start", "model", "tenant", "key"} & set(offline)
    with_model = replace(BARE, engine="/b", model="/m.gguf")
    assert {"engine", "model"} <= set(_names(Answers(), with_model))
    assert not {"engine", "model"} & set(_names(Answers(role="gateway"), with_model))


def test_what_is_done_is_marked_until_its_answers_change_or_it_is_gone() -> None:
    steps = plan_install(Answers(), BARE)
    there = replace(
        BARE, accounts=True, tree=True, config=True, site=True, runs=True,
        done={step.name: step.told for step in steps},
    )  # fmt: skip
    again = plan_install(Answers(), there)
    assert [step.name for step in again if not step.done] == []
    gone = plan_install(Answers(), replace(there, tree=False))
    assert [step.name for step in gone if not step.done] == ["tree"]
    other = plan_install(Answers(tenant_name="acme"), there)
    assert [step.name for step in other if not step.done] == ["tenant", "key"]
    upgraded = plan_install(Answers(), replace(there, version="1.3.0"))
    assert {"tree", "commands", "units"} <= {step.name for step in upgraded if not step.done}


def test_as_json_it_says_the_same_without_what_is_ours_alone() -> None:
    steps = plan_install(Answers(), BARE)
    told = as_json(steps, BARE)
    assert told["version"] == "1.2.0"
    assert [set(row) for row in told["steps"]] == [{"name", "does", "undo", "done"}] * len(steps)
