"""Settings of the site that are changed while it runs: short names, short texts."""


class SiteSettings:
    async def get(self, name: str) -> str | None:
        raise NotImplementedError

    async def list(self) -> dict[str, str]:
        raise NotImplementedError

    async def set(self, actor: str, name: str, value: str | None) -> None:
        """None forgets the setting."""
        raise NotImplementedError
