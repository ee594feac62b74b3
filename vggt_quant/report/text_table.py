"""Tables of text: names on the left, figures right-aligned, remarks last, none wider than the page."""

WIDTH = 120


def lay_out(names: list[str], cells: list[list[str]], tails: list[str], *, header: int) -> list[str]:
    """The lines of a table, with a rule below its first `header` lines.

    Args:
        names: One a line; the middle of a long one is cut out where the page is too narrow.
        cells: As many a line.
        tails: What follows the last cell, left-aligned.
        header: How many of the lines are headings.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = WIDTH - sum(widths) - len(widths) - 2 - max(map(len, tails))
    name_width = min(room, max(map(len, names)))
    lines = []
    for name, line, tail in zip(names, cells, tails, strict=True):
        aligned = " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        lines.append(f"{shorten(name, name_width).ljust(name_width)} {aligned}  {tail}".rstrip())
    return [*lines[:header], "-" * max(map(len, lines)), *lines[header:]]


def shorten(name: str, width: int) -> str:
    """Cut out the middle: what differs between variants stands at either end."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
