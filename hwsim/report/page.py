"""One HTML page: sections of figures and tables around a template. Opens without a network; every name is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from hwsim.report.figure import CONFIG
from hwsim.report.shown import Shown


@dataclass(frozen=True)
class Figure:
    """A Plotly figure with a caption; `wide` ones take the whole width."""

    figure: go.Figure
    caption: str = ""
    title: str = ""
    wide: bool = True
    tools: bool = False  # buttons to zoom and to save, above the plot


@dataclass(frozen=True)
class Sheet:
    """A table; with a `fold` it is closed until somebody opens it."""

    content: Shown
    fold: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Words:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Figure | Sheet | Words]


def page(title: str, settings: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The page as text; plotly.js is in it once."""
    plotly_js = Markup(get_plotlyjs().replace("</script", "<\\/script"))
    parts = {"style": _style(), "plotly_js": plotly_js, "drawn": _drawing(sections), "legend": _legend}
    return _templates().get_template("page.html").render(title=title, settings=settings, sections=sections, **parts)


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["figure"] = lambda block: isinstance(block, Figure)
    environment.tests["sheet"] = lambda block: isinstance(block, Sheet)
    return environment


def _style() -> Markup:
    return Markup((Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8"))


def _drawing(sections: Sequence[Section]) -> Callable[[Figure], Markup]:
    """Figure -> its division and script, numbered so that the same runs give the same file."""
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    numbers = {id(block): number for number, block in enumerate(figures, start=1)}
    return lambda block: _division(block, f"figure-{numbers[id(block)]}")


def _division(block: Figure, name: str) -> Markup:
    """Plotly writes <, > and / in its JSON as escapes, so that no name can end the script."""
    figure = go.Figure(block.figure).update_layout(showlegend=False)
    config = CONFIG | {"displayModeBar": block.tools, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    height = f"{figure.layout.height}px"
    return Markup(to_html(figure, config=config, include_plotlyjs=False, full_html=False, div_id=name, default_height=height))


def _legend(block: Figure) -> list[tuple[Markup, str]]:
    """(name, colour) of the traces in the figure's legend: as text it wraps on a narrow page, where Plotly's own does not fit."""
    shown = [trace for trace in block.figure.data if trace.name and trace.showlegend is not False]
    return [(Markup(trace.name), trace.marker.color) for trace in shown]  # names were escaped for Plotly, see figure.safe
