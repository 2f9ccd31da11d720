"""A status page that stays open for months on a display without a keyboard, and needs no script for that.

A page that loads itself anew is lost when the fleet is away at that moment: the browser shows its own error page, and
most leave it at that. So what is loaded anew here is a document that comes from nowhere (`srcdoc`): it can always be
loaded, and each time it asks for the status page in a frame of its own. The outer page never goes anywhere.
"""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

EVERY: Final = 10
"""Seconds between two looks."""

_HEAD: Final = Markup('<!doctype html><html lang="en" class="wall"><head><meta charset="utf-8">{}</head>')
_INNER: Final = Markup('{}<body><iframe src="status?framed=true" title="The status page"></iframe></body></html>')
_PAGE: Final = Markup(
    '{}<body><iframe srcdoc="{}" title="The status page, loaded anew every {} seconds"></iframe></body></html>\n'
)
_STYLE: Final = Markup('<title>fleet</title><link rel="stylesheet" href="status.css">')


def page() -> str:
    """The whole page, the same for everybody: what may be seen is decided for the page within."""
    again = Markup('<meta http-equiv="refresh" content="{}">').format(EVERY)
    inner = _INNER.format(_HEAD.format(again + _STYLE))
    return str(_PAGE.format(_HEAD.format(_STYLE), str(inner), EVERY))
