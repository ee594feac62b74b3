"""The code blocks of docs/extending.md."""

from package_copy import ROOT


def code(section: str) -> str:
    """The first Python block of a section."""
    text = (ROOT / "docs" / "extending.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return text.split("```python\n")[1].split("```")[0]
