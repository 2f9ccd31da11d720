"""How the status page looks: its colours (one table, whose contrast a test computes) and its stylesheet."""

from __future__ import annotations

from typing import Final, NamedTuple


class Contrast(NamedTuple):
    """Text on its background."""

    text: str
    ground: str


class Scheme(NamedTuple):
    """Colours by light or dark. `page` and `card` are surfaces, `line` parts them; states are text on a ground each."""

    page: str
    card: str
    line: str
    text: str
    quiet: str
    link: str
    states: dict[str, Contrast]


LIGHT: Final = Scheme(
    page="#f6f7f9",
    card="#ffffff",
    line="#d5dae2",
    text="#171b22",
    quiet="#4a5361",
    link="#1a56c4",
    states={
        "ok": Contrast("#167040", "#e0f3e7"),
        "warn": Contrast("#855800", "#fcefcc"),
        "crit": Contrast("#b3261e", "#fde4e1"),
        "planned": Contrast("#6a3fa8", "#efe6fb"),
        "unknown": Contrast("#5f6a7c", "#edf0f4"),
    },
)
DARK: Final = Scheme(
    page="#0d1117",
    card="#151a22",
    line="#2c3542",
    text="#e6e9ef",
    quiet="#b0b8c4",
    link="#7fb0ff",
    states={
        "ok": Contrast("#4cc47e", "#10301f"),
        "warn": Contrast("#e3ab3c", "#35280a"),
        "crit": Contrast("#ff857a", "#421a17"),
        "planned": Contrast("#c6a1ff", "#2b1d45"),
        "unknown": Contrast("#8f9aab", "#1e2530"),
    },
)

_RULES: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text)}
body{font:13px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:75rem;margin:0 auto;padding:16px}
h1,h2{font-size:15px;margin:0 0 12px}
h2{margin-top:24px}
h1{font-size:20px;line-height:1.3;padding:12px 16px;border-radius:4px;overflow-wrap:anywhere}
h1 small{font-size:13px;font-weight:400;white-space:nowrap}
p{margin:0 0 12px}
a{color:var(--link)}
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:8px;margin:0 0 12px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:4px;padding:8px 12px}
.tiles dt{color:var(--quiet)}
.tiles dd{margin:0;font-size:20px}
.tiles dd.quiet{font-size:12px}
table{width:100%;border-collapse:collapse;background:var(--card);border:1px solid var(--line)}
th,td{padding:6px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{color:var(--quiet);font-weight:400}
td.n,th.n{text-align:right;white-space:nowrap;width:1%}
td:first-child,th:first-child{width:1%}
.state{display:inline-block;padding:0 8px;border-radius:4px;white-space:nowrap}
.quiet{color:var(--quiet)}
.note{padding:8px 16px;border-radius:4px}
input,button{font:inherit;padding:4px 8px;border:1px solid var(--line);border-radius:4px}
input{background:var(--card);color:var(--text);width:24rem;max-width:100%}
.wall,.wall body{height:100%}
iframe{display:block;border:0;width:100%;height:100%}
footer{margin-top:24px;color:var(--quiet)}
footer a{margin-right:12px}
@media (max-width:52rem){
thead{display:none}
table,tbody,td,td.n,td:first-child{display:block;width:auto}
tr{display:flex;flex-wrap:wrap;gap:2px 8px;padding:8px 12px;border-bottom:1px solid var(--line)}
td,td.n{border:0;padding:0;text-align:left;white-space:normal}
td[data-head="Server"],td[data-head="Alert"]{flex:1;min-width:50%;font-weight:600}
td[data-head="Why"],td[data-head="Detail"]{flex:1 0 100%}
td.n::before{content:attr(data-head) " ";color:var(--quiet)}
}
@media (max-width:40rem){
.tiles{grid-template-columns:1fr 1fr}
.tiles div:last-child:nth-child(odd){grid-column:1/-1}
}
""".replace("\n", "")


def stylesheet() -> str:
    """The whole of it; light or dark as the reader's system is."""
    light, dark = _colours(LIGHT), _colours(DARK)
    states = "".join(f".{name}{{color:var(--{name});background:var(--{name}-ground)}}" for name in LIGHT.states)
    return (
        f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{_RULES}{states}"
    )


def _colours(scheme: Scheme) -> str:
    plain = {name: getattr(scheme, name) for name in ("page", "card", "line", "text", "quiet", "link")}
    grounds = {f"{name}-ground": pair.ground for name, pair in scheme.states.items()}
    texts = {name: pair.text for name, pair in scheme.states.items()}
    return "".join(f"--{name}:{value};" for name, value in {**plain, **texts, **grounds}.items())
