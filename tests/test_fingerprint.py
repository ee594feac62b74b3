"""The code that a function can reach, on small packages: what an edit changes, and what it does not."""

import pytest

from vggt_quant.runtime import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules, given as text by name; `/` is a folder, which gets an `__init__`."""
    root = tmp_path / "vggt_quant"
    monkeypatch.setattr(fingerprint, "PACKAGE", root)

    def write(**modules):
        for name, text in modules.items():
            path = root.joinpath(*name.split("__in__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(text)
        fingerprint.forget()

    yield write
    monkeypatch.undo()
    fingerprint.forget()


def changes(package, entry, edited, text, **settings):
    before = fingerprint.code(entry, **settings)
    package(**{edited: text})
    return fingerprint.code(entry, **settings) != before


TARGET = "thing = 1\nother = 1\n"


@pytest.mark.parametrize(
    "statement",
    [
        "from . import target\ndef f(): return target.thing",
        "from . import target as t\ndef f(): return t.thing",
        "from .target import *\ndef f(): return thing",
        "from .target import thing\ndef f(): return thing",
        "from .target import thing as t\ndef f(): return t",
        "from ..folder import target\ndef f(): return target.thing",
        "import vggt_quant.folder.target\ndef f(): return vggt_quant.folder.target.thing",
        "import vggt_quant.folder.target as t\ndef f(): return t.thing",
        "from vggt_quant.folder import target\ndef f(): return target.thing",
        "from vggt_quant.folder import target\ndef f(): return getattr(target, 'thing')",
        "def f():\n    from .target import thing\n    return thing",
        "def f():\n    from . import target\n    return target.thing",
        "if TYPE_CHECKING:\n    from .target import thing\ndef f(x: thing): return x",
        "from __future__ import annotations\nfrom .target import thing\ndef f(x: list[thing]): return x",
        "from .target import thing\ndef f(x=thing): return x",
        "from .target import thing\n@thing\ndef f(x): return x",
        "from .target import thing\ndef f():\n    def g():\n        return thing\n    return g",
        "from .target import thing\nclass f(thing): pass",
        "from .target import thing\nclass f:\n    def g(self): return thing",
        "from .target import thing\nHELD = {1: thing}\ndef f(): return HELD[1]",
        "from .target import thing\ndef g(): return thing\ndef f(): return [g() for _ in range(2)]",
        "from .target import thing\ndef g(): return thing\nf = g",
        "from .target import thing\ntry:\n    made = thing()\nfinally:\n    made = None\ndef f(): return made",
        "from .target import thing\nthing.patched = True\ndef f(): return 1",
    ],
)
def test_every_way_to_use_a_definition_is_followed_to_it_and_to_no_other(package, statement):
    package(folder__in__target=TARGET, folder__in__probe=statement + "\n")
    before = fingerprint.closure("folder.probe:f")
    assert changes(package, "folder.probe:f", "folder__in__target", TARGET.replace("thing = 1", "thing = 2"))
    package(folder__in__target=TARGET)
    assert fingerprint.closure("folder.probe:f") == before
    takes_all = "getattr" in statement or "import *" in statement
    assert (
        changes(package, "folder.probe:f", "folder__in__target", TARGET.replace("other = 1", "other = 2")) == takes_all
    )


def test_a_parameter_or_variable_with_the_name_of_an_import_is_not_followed(package):
    code = "from vggt_quant.folder import target\ndef f(target): return target.thing\n"
    package(folder__in__target=TARGET, folder__in__probe=code)
    assert not changes(package, "folder.probe:f", "folder__in__target", TARGET.replace("1", "2"))
    package(
        folder__in__target=TARGET, folder__in__probe=code.replace("def f(target):", "def f():\n    target = 1\n   ")
    )
    assert not changes(package, "folder.probe:f", "folder__in__target", TARGET.replace("1", "2"))


def test_a_function_that_nobody_reaches_may_change(package):
    package(probe="def f(): return 1\ndef g(): return 1\n")
    assert not changes(package, "probe:f", "probe", "def f(): return 1\ndef g(): return 2\ndef h(): return 3\n")
    assert changes(package, "probe", "probe", "def f(): return 1\ndef g(): return 3\n")


def test_what_a_module_runs_when_it_is_imported_counts_also_where_nothing_of_it_is_used(package):
    package(target="", probe="from vggt_quant import target\ndef f(): return 1\n")
    assert changes(package, "probe:f", "target", "print(1)\n")


def test_an_import_is_followed_through_the_package_that_hands_it_on(package):
    package(folder__in__target=TARGET, probe="from vggt_quant.folder import thing\ndef f(): return thing\n")
    package(folder__in____init__="from vggt_quant.folder.target import thing\n")
    assert changes(package, "probe:f", "folder__in__target", TARGET.replace("thing = 1", "thing = 2"))


FINDER = "import importlib\ndef get(name): return importlib.import_module(f'{__name__}.{name}')\n"


def test_files_that_are_found_by_name_are_all_taken_or_those_that_were_chosen(package):
    package(folder__in__a="x = 1\n", folder__in__b="x = 1\n", folder__in___c="x = 1\n")
    package(folder__in____init__=FINDER, probe="from vggt_quant import folder\ndef f(): return folder.get('a')\n")
    chosen = {"folder": ["a"]}
    assert not changes(package, "probe:f", "folder__in__b", "x = 2\n", chosen=chosen)
    assert changes(package, "probe:f", "folder__in__a", "x = 2\n", chosen=chosen)
    assert changes(package, "probe:f", "folder__in__b", "x = 3\n")
    assert changes(package, "probe:f", "folder__in__new", "x = 1\n")
    assert not changes(package, "probe:f", "folder__in___c", "x = 2\n")


def test_what_is_left_out_is_not_followed(package):
    package(a__in__inner="x = 1\n", probe="from vggt_quant.a.inner import x\ndef g(): return x\ndef f(): return g()\n")
    for without in ("a", "a.inner", "a.inner:x", "probe:g"):
        package(a__in__inner="x = 1\n")
        assert not changes(package, "probe:f", "a__in__inner", "x = 2\n", without=[without])
    assert changes(package, "probe:f", "a__in__inner", "x = 3\n", without=["a.in", "a.inner:y", "other"])


def test_comments_docstrings_and_layout_change_nothing(package):
    package(probe='def f():\n    """One."""\n    return (1 + 2)\nclass C:\n    x: int = 1\n    """Field."""\n')
    again = '"""Module."""\n# Why.\ndef f():\n    return 1 + 2  # three\nclass C:\n    """C."""\n    x: int = 1\n'
    assert not changes(package, "probe", "probe", again)
    assert changes(package, "probe", "probe", again.replace("1 + 2", "1 + 3"))


@pytest.mark.parametrize("statement", ["from vggt_quant import load", "from . import load", "from .target import load"])
def test_an_import_that_cannot_be_followed_is_refused(package, statement):
    package(target="x = 1\n", probe=f"{statement}\ndef f(): return load('x')\n")
    with pytest.raises(
        ValueError, match=r"probe imports vggt_quant.*load, which is not there; import it from the file"
    ):
        fingerprint.code("probe:f")


def test_an_entry_that_does_not_exist_is_named(package):
    package(probe="x = 1\n")
    with pytest.raises(ValueError, match=r"no module metricks"):
        fingerprint.code("metricks:f")
    with pytest.raises(ValueError, match=r"vggt_quant\.probe defines no f"):
        fingerprint.code("probe:f")
