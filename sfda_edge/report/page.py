"""A self-contained HTML page: text, tables and pictures in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from sfda_edge.runs.files import write_text

_TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #d8dee4 }
th:first-child, td:first-child, td:nth-child(2):last-child { text-align: left }
td:first-child { white-space: nowrap }
img { max-width: 100%; display: block; margin: .5rem 0 }
p.note { color: #57606a }
</style>
<h1>{{ page.title }}</h1>
<p>{{ page.introduction }}</p>
{% for section in page.sections %}
<h2>{{ section.title }}</h2>
{% if section.text %}<p class="note">{{ section.text }}</p>{% endif %}
{% if section.table %}
<table>
{% for row in section.table %}
{% set cell_tag = 'th' if loop.first else 'td' %}
<tr>{% for cell in row %}<{{ cell_tag }}>{{ cell }}</{{ cell_tag }}>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if section.picture %}<img src="{{ section.picture }}" alt="{{ section.title }}">{% endif %}
{% endfor %}
</html>
"""


@dataclass(frozen=True)
class Section:
    """A heading with a table, a picture or both.

    Attributes:
        title, text: for people.
        table: rows of cells, the first row is the heading.
        picture: a data URL, as ``picture_url`` makes it.
    """

    title: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    picture: str = ""


@dataclass(frozen=True)
class Page:
    """A page of sections."""

    title: str
    introduction: str
    sections: list[Section] = field(default_factory=list)


def picture_url(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URL, so that the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(path: Path, page: Page) -> None:
    """Write the page whole or not at all; all text is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(path, environment.from_string(_TEMPLATE).render(page=page))
