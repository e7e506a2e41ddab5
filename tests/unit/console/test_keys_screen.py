"""4 Tenants: a key of which only the beginning is known is found, and acted on."""

from pathlib import Path

from tests.fakes.console_pilot import driven


async def test_a_key_is_found_by_how_it_begins(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", mode="4") as seen:
        await seen.reads("TENANT")
        await seen.press("a")
        await seen.reads("clsk_live_")
        await seen.press("slash", *"Ab03", "enter")
        await seen.reads("1 of")
        assert "R Rotate" in seen.picture()
        await seen.press("R")
        await seen.reads("0s ends it at once")
        await seen.press("escape")
        await seen.until(lambda: len(seen.app.screen_stack) == 1)
        await seen.press("enter")
        await seen.reads("Limits in force")


async def test_the_word_keys_leads_there(tmp_path: Path) -> None:
    async with driven(tmp_path / "home") as seen:
        await seen.press("colon", *"keys", "enter")
        await seen.reads("/ finds one by how it begins")


async def test_a_site_without_keys_says_where_they_are_made(tmp_path: Path) -> None:
    async with driven(tmp_path / "home", mode="4", nodes=0, deployments=0, tenants=0) as seen:
        await seen.press("a")
        await seen.reads("They are made in a tenant")
        await seen.press("R")
        assert len(seen.app.screen_stack) == 1
