"""The code blocks of docs/extending.md."""

from package_copy import ROOT


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return (ROOT / "docs" / "extending.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def code(title: str) -> str:
    """The first Python block of a section."""
    return section(title).split("```python\n")[1].split("```")[0]
