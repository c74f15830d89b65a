"""Write the measurements of tests into the tables of documents: `tables.py MEASUREMENTS DOCUMENT...`."""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

Measurement = tuple[str, str, str, float | str]

ROWS = {
    "redis": "fault",
    "clients": "client",
    "comparison": "fact",
}  # the heading of the first column, where the rows are not servers


def table_of(name: str, measurements: list[Measurement]) -> str:
    """Return one table: a row for each server, sorted, and a column for each measurement."""
    columns = list(dict.fromkeys(column for table, _, column, _ in measurements if table == name))
    rows: dict[str, dict[str, float | str]] = defaultdict(dict)
    for table, row, column, value in measurements:
        if table == name:
            rows[row][column] = value
    lines = [
        f"| {ROWS.get(name.partition('_')[0], 'server')} | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row, cells in rows.items():
        texts = [_shown(cells.get(column, "never")) for column in columns]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f} s"


def write(measurements: list[Measurement], document: str) -> str:
    """Replace the text between `<!-- table NAME -->` and `<!-- end -->`, where something was measured."""
    measured = {measurement[0] for measurement in measurements}

    def replaced(match: re.Match[str]) -> str:
        if match[2] not in measured:
            return match[0]
        return f"{match[1]}\n{table_of(match[2], measurements)}\n{match[3]}"

    return re.sub(r"(<!-- table (\w+) -->)\n(?:.*?\n)??(<!-- end -->)", replaced, document, flags=re.DOTALL)


def _order(measurement: Measurement) -> tuple[str, ...]:
    """Sort the columns by name, unless their order tells something."""
    table, row, column, _ = measurement
    return (table,) if table.startswith(("clients", "comparison")) else (table, row, column)


if __name__ == "__main__":
    noted: list[Measurement] = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    for page in map(Path, sys.argv[2:]):
        page.write_text(write(sorted(noted, key=_order), page.read_text()))
