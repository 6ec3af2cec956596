# SPDX-License-Identifier: Apache-2.0
"""Bars, as SVG. A library of plots would bring fifty megabytes for these rectangles."""

from html import escape

COLOURS = {
    "local disk": "#7f8c8d",
    "remote, no cache": "#c0392b",
    "forebay, cold": "#74a9cf",
    "forebay, warm": "#0570b0",
}
LEFT, LENGTH, HEIGHT, GAP = 150, 420, 20, 34


def bars(result, headlines):
    """Returns a picture with a group of bars for each work: its headline, from every place."""
    parts, y = [], 10
    for work, headline in headlines:
        rows = [row for row in result["rows"] if row["work"] == work]
        most = max(row[headline] for row in rows)
        y += GAP - 10
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(work)}: {headline}</text>')
        y += 8
        for row in rows:
            length = LENGTH * row[headline] / most
            middle = y + HEIGHT - 6
            parts += [
                f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(row["from"])}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{HEIGHT - 3}" '
                f'fill="{COLOURS[row["from"]]}"/>',
                f'<text x="{LEFT + length + 6:.1f}" y="{middle}">{row[headline]:.4g}</text>',
            ]
            y += HEIGHT
    width = LEFT + LENGTH + 80
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 14}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{y + 14}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )
