"""Draws what `tray-valet demo` prints as an SVG: `python3 packaging/demo_picture.py [--from FILE] [SVG]`.

Without `--from` it runs the demo of this checkout's `.venv/`; FILE is a demo's output, `-` is standard input.
The picture goes to assets/demo.svg if nothing else is named.

Decides: the layout and colours of the picture. Must not: change a word of what the demo said.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "assets" / "demo.svg"
DEMO_TIMEOUT_S = 300

COLUMNS = 84  # of the text beside the times; longer lines go on below
PROSE_COLUMNS = COLUMNS + 12
FONT_PX, LINE_PX, MARGIN_PX = 13, 20, 20
CHAR_PX = FONT_PX * 0.602  # the widest of the usual fixed fonts (Menlo, DejaVu Sans Mono); others fit, too
TIME_END_PX, MARK_PX, TEXT_PX = MARGIN_PX + 62, MARGIN_PX + 76, MARGIN_PX + 100

# One dark ground for light and dark pages: 4.5:1 or better for every colour on it.
GROUND, EDGE = "#16181c", "#79828f"
PLAIN, FAINT, SEEN, FAILED, QUOTED = "#e6e9ee", "#97a0ac", "#46dccb", "#ff8080", "#84b3ff"

_STEP = re.compile(r" *(?P<time>\d+\.\d\d s)  (?P<mark>[✓✗])  (?P<text>.*?)(?P<took>  \([^()]*\))?")
_QUOTE = re.compile(r"“[^”]*(?:”|$)")
_REST_OF_QUOTE = re.compile(r"^[^”]+(?:”|$)|“[^”]*(?:”|$)")
NO_BREAK = "\u00a0"


class Line(NamedTuple):
    """One printed line of the picture; a step has a time and a mark, what goes on below it has not."""

    text: str
    time: str = ""
    mark: str = ""
    is_step: bool = False
    is_took_last: bool = False
    is_in_quote: bool = False  # it begins inside a quotation that began above


def main(argv: list[str]) -> int:
    """Draw the picture; returns 0, or 1 with the reason where the demo did not tell the whole story."""
    parser = argparse.ArgumentParser(description="Draws the output of `tray-valet demo` as an SVG.")
    parser.add_argument("--from", dest="source", metavar="FILE", help="a demo's output; - is standard input")
    parser.add_argument("svg", nargs="?", type=Path, default=PICTURE, metavar="SVG", help="what to write")
    arguments = parser.parse_args(argv)
    try:
        output = read_output(arguments.source)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stdout", None) or b""  # a demo that failed says why
        print(f"{told.decode('utf-8', 'replace')}demo_picture.py: nothing is drawn: {error}", file=sys.stderr)
        return 1
    arguments.svg.parent.mkdir(parents=True, exist_ok=True)
    arguments.svg.write_text(picture(output), encoding="utf-8")
    print(f"demo_picture.py: {arguments.svg} is drawn")
    return 0


def read_output(source: str | None) -> str:
    """What a demo printed: from `source`, else of one that runs now. Raises OSError, SubprocessError."""
    if source == "-":
        return sys.stdin.read()
    if source is not None:
        return Path(source).read_text(encoding="utf-8")
    folder, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
    command = [str(ROOT / ".venv" / folder / f"tray-valet{suffix}"), "demo"]
    run = subprocess.run(command, capture_output=True, timeout=DEMO_TIMEOUT_S, check=True)
    return run.stdout.decode("utf-8")


def picture(output: str) -> str:
    """The SVG of a demo's output."""
    lines = layout(output)
    width_px = round(TEXT_PX + COLUMNS * CHAR_PX + MARGIN_PX)
    height_px = (len(lines) + 1) * LINE_PX + 2 * MARGIN_PX
    body = [drawn(line, MARGIN_PX + LINE_PX * (row + 1)) for row, line in enumerate(lines, 1)]
    command = f'<tspan fill="{FAINT}">$ </tspan>tray-valet demo'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width_px} {height_px}" width="{width_px}"'
            f' height="{height_px}" role="img" aria-labelledby="title">',
            '<title id="title">A terminal with the output of tray-valet demo</title>',
            f'<rect x="0.5" y="0.5" width="{width_px - 1}" height="{height_px - 1}" rx="10" fill="{GROUND}"'
            f' stroke="{EDGE}"/>',
            f"<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\""
            f' font-size="{FONT_PX}" fill="{PLAIN}" xml:space="preserve">',
            f'<text x="{MARGIN_PX}" y="{MARGIN_PX + LINE_PX // 2}">{command}</text>',
            *filter(None, body),
            "</g>",
            "</svg>",
            "",
        ]
    )


def layout(output: str) -> list[Line]:
    """The demo's lines as they fit the picture: paragraphs filled, long steps broken."""
    lines: list[Line] = []
    for paragraph in output.strip("\n").split("\n\n"):
        lines.append(Line(""))
        prose: list[str] = []
        for printed in paragraph.split("\n"):
            step = _STEP.fullmatch(printed)
            if step is None:
                prose.append(printed.strip())
            else:
                lines += _step_lines(step)
        lines += [Line(text) for text in textwrap.wrap(" ".join(prose), PROSE_COLUMNS)]
    return lines[1:]


def _step_lines(step: re.Match[str]) -> list[Line]:
    took = (step["took"] or "").strip()
    # What a step took is never broken, and stands at the end of its last line.
    took = took.replace(" ", NO_BREAK)
    whole = f"{step['text']}  {took}" if took else step["text"]
    texts = textwrap.wrap(whole, COLUMNS, break_on_hyphens=False) or [""]
    last = len(texts) - 1
    return [
        Line(
            text=text.replace(NO_BREAK, " "),
            time=step["time"] if row == 0 else "",
            mark=step["mark"] if row == 0 else "",
            is_step=True,
            is_took_last=bool(took) and row == last,
            is_in_quote=_is_open(" ".join(texts[:row])),
        )
        for row, text in enumerate(texts)
    ]


def _is_open(text: str) -> bool:
    return text.count("“") > text.count("”")


def drawn(line: Line, y_px: int) -> str:
    """One line as SVG; nothing for an empty one."""
    if not line.text:
        return ""
    if not line.is_step:
        return f'<text x="{MARGIN_PX}" y="{y_px}">{_coloured(line.text, False)}</text>'
    parts = []
    if line.mark:
        colour = SEEN if line.mark == "✓" else FAILED
        parts.append(
            f'<text x="{TIME_END_PX}" y="{y_px}" text-anchor="end" fill="{FAINT}">{line.time}</text>'
        )
        parts.append(f'<text x="{MARK_PX}" y="{y_px}" fill="{colour}">{line.mark}</text>')
    text, took = line.text, ""
    if line.is_took_last:
        at = text.rindex("(")
        text, took = text[:at], f'<tspan fill="{FAINT}">{escape(text[at:])}</tspan>'
    parts.append(f'<text x="{TEXT_PX}" y="{y_px}">{_coloured(text, line.is_in_quote)}{took}</text>')
    return "".join(parts)


def _coloured(text: str, is_in_quote: bool) -> str:
    """Quotations in another colour; `is_in_quote`: one that began on the line above goes on."""
    pattern = _REST_OF_QUOTE if is_in_quote else _QUOTE
    return pattern.sub(lambda quote: f'<tspan fill="{QUOTED}">{quote[0]}</tspan>', escape(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
