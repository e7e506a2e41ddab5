"""The pages of the console in a browser. They have no script but those of the terminal."""

from html import escape
from typing import Final

_HEAD: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<link rel="stylesheet" href="/static/xterm.css"><link rel="stylesheet"'
    ' href="/static/page.css"><link rel="icon" href="data:,">{more}</head>'
)


def terminal(socket_url: str, site: str) -> str:
    """The terminal, as large as the window; `socket_url` is where its script connects."""
    head = _HEAD.format(
        title=escape(f"{site} console"),
        more='<script src="/static/page.js"></script><script src="/static/textual.js"></script>',
    )
    return (
        f'{head}<body><div class="textual-terminal" data-font-size="15"'
        f' data-session-websocket-url="{escape(socket_url)}"></div>'
        '<div class="closed"><h1>The console has ended.</h1>'
        "<p>Reload this page to begin again.</p></div></body></html>"
    )


def told(title: str, text: str) -> str:
    """A sentence, and what to do."""
    head = _HEAD.format(title=escape(title), more="")
    body = f"<main><h1>{escape(title)}</h1><p>{escape(text)}</p></main>"
    return f"{head}<body>{body}</body></html>"
