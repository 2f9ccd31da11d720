"""The page on which a browser shows its key, and the forms of the status page. HTML made on the server, no scripts."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from fleet.security.api_keys import LONGEST_KEY
from fleet.security.roles import Identity

TELLING: Final = Markup('<meta name="referrer" content="same-origin">')
"""In the head of a page with a form: by the header's no-referrer, browsers would hide the form's Origin from us too."""
_FORM: Final = Markup(
    '<form method="post" action="login"><label>API key <input type="password" name="key" required maxlength="{}"'
    ' autocomplete="current-password"></label> <button>Log in</button></form>'
)
_LEAVE: Final = Markup(
    '<form method="post" action="logout"><span>Logged in as {} ({}).</span> <button>Log out</button></form>'
)
_PAGE: Final = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '{}<title>Log in · fleet</title><link rel="stylesheet" href="status.css"></head>'
    '<body><main><h1>Log in</h1>{}{}<p class="quiet">A key of the role operator or admin shows servers and models; '
    "<code>fleet keys add NAME --role operator</code> makes one. The browser stays logged in for 30 days, or until the "
    'key is revoked.</p><footer><a href="./">Back to the page</a></footer></main></body></html>\n'
)
_FAULT: Final = Markup('<p class="note crit">{}</p>')


def form() -> Markup:
    """Asks for a key."""
    return _FORM.format(LONGEST_KEY)


def leave(who: Identity) -> Markup:
    """Says who is logged in, and lets them log out."""
    return _LEAVE.format(who.name, who.role.word)


def page(fault: str = "") -> str:
    """The whole page, with what went wrong the last time."""
    return str(_PAGE.format(TELLING, _FAULT.format(fault) if fault else "", form()))
