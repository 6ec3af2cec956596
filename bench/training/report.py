# SPDX-License-Identifier: Apache-2.0
"""The result of a run, as a table for people."""

import os
import pathlib
import platform

# Columns that say something about the row and are no figures of the job.
TEXTS = ("work", "from", "n")


def machine():
    meminfo = pathlib.Path("/proc/meminfo").read_text().split()
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "memory_bytes": int(meminfo[1]) * 1024,
        "load": os.getloadavg()[0],
    }


def cell(key, value):
    match value:
        case None:
            return "-"
        case str():
            return value
        case _ if key == "of local":
            return f"{value:.2f}"
        case _ if abs(value) >= 100 or value == int(value):
            return f"{value:.0f}"
        case _:
            return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def table(result):
    """Returns the rows as a table in Markdown, below what they were measured on."""
    rows = result["rows"]
    keys = list(rows[0])
    lines = [keys, *([cell(key, row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(keys))]
    texts = []
    for line in lines:
        cells = [
            text.ljust(width) if key in TEXTS[:2] else text.rjust(width)
            for key, text, width in zip(keys, line, widths, strict=True)
        ]
        texts.append("| " + " | ".join(cells) + " |")
    rule = "|".join(
        "-" * (width + 1) + ("-" if key in TEXTS[:2] else ":")
        for key, width in zip(keys, widths, strict=True)
    )
    texts.insert(1, f"|{rule}|")
    on, storage, share = result["machine"], result["storage"], result["cache_share"]
    head = [
        f"forebay {result['forebay']}, kernel {on['kernel']}, {on['cores']} cores, "
        f"{on['memory_bytes'] >> 30} GiB of memory, load {on['load']:.1f} at the end; "
        f"without a cache: {result['uncached']}",
        f"storage at {storage['latency_ms']:g} ms and {storage['bandwidth'] / 1e6:g} MB/s; "
        f"{result['data']['bytes'] / 1e6:.0f} MB of data; medians where n is more than 1",
        *result["notes"],
        *([f"the cache holds {share:.0%} of the data at most"] if share else []),
    ]
    return "\n".join(head) + "\n\n" + "\n".join(texts)
