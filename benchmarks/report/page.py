"""The page: one HTML file, without scripts, that reads on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.content import Section

_TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --back: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --line: #343b44; --back: #14181d }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--ink); background: var(--back) }
nav a { margin-right: 1rem; white-space: nowrap; color: inherit }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .9rem .22rem 0; text-align: right; border-bottom: 1px solid var(--line);
         vertical-align: top; white-space: nowrap }
td.reason { white-space: normal; min-width: 16rem; color: var(--soft) }
th:first-child, td:first-child { text-align: left }
th { color: var(--soft); font-weight: 600 }
svg { width: 100%; min-width: 34rem; max-width: 60rem; height: auto; display: block;
      margin: .6rem 0 }
h2 { margin-top: 2.4rem }
h3 { font-size: 1rem; margin-bottom: 0 }
p.note, code { color: var(--soft) }
code { font-size: .85rem; overflow-wrap: anywhere }
</style>
<h1>{{ title }}</h1>
<p class="note">Made by <code>{{ command }}</code>. Under each table stand the command that measures
it again and the machine.</p>
<nav>{% for section in sections %}<a href="#s{{ loop.index }}">{{ section.title }}</a>
{% endfor %}</nav>
{% for section in sections %}
<h2 id="s{{ loop.index }}">{{ section.title }}</h2>
<p class="note">{{ section.text }}</p>
{% for block in section.blocks %}
<h3>{{ block.table.title }}</h3>
{% if block.chart %}<div class="wide">{{ block.chart | safe }}</div>{% endif %}
<div class="wide"><table>
<tr>{% for name in block.table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for cells in block.table.cells %}
<tr>{% for cell in cells %}<td{% if cell.startswith("did not run") %} class="reason"{% endif %}>
{{- cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p class="note"><code>{{ block.table.command }}</code><br>{{ block.table.machine }}</p>
{% endfor %}
{% endfor %}
</html>
"""


def markdown(sections: Sequence[Section]) -> str:
    """The same tables without charts, each with its command."""
    lines = ["# Tables", "", "Made by `python -m benchmarks.report --markdown FILE`."]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.text]
        for block in section.blocks:
            lines += ["", f"    {block.table.command}", "", block.table.markdown()]
    return "\n".join(lines) + "\n"


def page(title: str, sections: Sequence[Section], command: str) -> str:
    """The page as HTML; every text in it is escaped, charts are our own SVG."""
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(title=title, sections=sections, command=command)
