"""runpod/README.md and its translation: every command, file, setting and price in them is real, and both agree."""

import json
import re
import shlex
from pathlib import Path

import pytest

from runpod.client import api, cli, cost, creation, settings, variables
from vggt_quant.cli.main import parser
from vggt_quant.data.fetch import eth3d

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runpod"
GUIDES = [FOLDER / "README.md", FOLDER / "README.zh-CN.md"]
MAIN_PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
SCRIPTS = "".join(path.read_text() for path in FOLDER.rglob("*.sh"))
PACKAGE = "".join(path.read_text() for path in (ROOT / "vggt_quant").rglob("*.py"))
FOREIGN = {"docker", "export", "scp", "ssh", "rsync", "aws", "runpodctl"}
"""Programs that are not ours; what follows them cannot be checked here."""
OF_OTHERS = {"HF_TOKEN"}
"""Variables of a pod that the start script does not read."""
SHELL = r"[;\n]|&&|\|\||\bdo\b"

guides = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)


def commands(guide):
    """The words of each command in the guide's bash blocks; a quoted argument may hold ends of lines."""
    for block in re.findall(r"^```bash\n(.*?)^```$", guide.read_text(), re.M | re.S):
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            pending += line + "\n"
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # a quote is still open
                continue
            pending = ""
            if words:
                yield words
        assert not pending, f"a quote without its partner: {pending}"


def pod_commands(guide):
    """The arguments of each `python -m runpod`, in blocks and in running text."""
    found = [words[3:] for words in commands(guide) if words[:3] == ["python", "-m", "runpod"]]
    named = re.findall(r"`python -m runpod ([^`]+)`", guide.read_text())
    return found + [shlex.split(text) for text in named]


def environments(guide):
    """What each command sets by --env."""
    parsed = [cli._parser().parse_args(words) for words in pod_commands(guide)]
    return [settings.variables(getattr(found, "env", None) or [], []) for found in parsed]


def table(guide, first_cell):
    """The cells of the table whose head begins with this cell (in any language: by its place in the English guide)."""
    tables = re.findall(r"(?:^\|.*\n)+", guide.read_text(), re.M)
    english = re.findall(r"(?:^\|.*\n)+", GUIDES[0].read_text(), re.M)
    (place,) = [number for number, text in enumerate(english) if text.startswith(f"| {first_cell} |")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in tables[place].splitlines()[2:]]


@guides
def test_every_program_is_ours_or_a_known_one(guide):
    for words in commands(guide):
        assert words[0] in FOREIGN | {"vggt-quant"} or words[:3] == ["python", "-m", "runpod"], words


@guides
def test_every_command_of_the_client_is_one(guide, monkeypatch, capsys):
    """Those that can be tried without an account are: --dry-run makes the request and contacts nobody."""
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    found = pod_commands(guide)
    assert len(found) >= 20
    for words in found:
        parsed = cli._parser().parse_args(words)
        if hasattr(parsed, "dry_run"):
            assert cli.main([*words, "--dry-run"]) == 0, capsys.readouterr().err


@guides
def test_every_variable_that_a_command_sets_is_read_in_the_pod(guide):
    for words in pod_commands(guide):
        parsed = cli._parser().parse_args(words)
        for name in settings.variables(getattr(parsed, "env", None) or [], getattr(parsed, "secret", None) or []):
            assert name in OF_OTHERS or f"${{{name}" in SCRIPTS, name


@guides
def test_every_vggt_quant_command_is_one_on_the_pod_too(guide):
    lines = [shlex.join(words) for words in commands(guide) if words[0] == "vggt-quant"]
    for env in environments(guide):
        lines += re.split(SHELL, env.get("VGGT_COMMAND", ""))
        lines += [f"vggt-quant compare {env['VGGT_RUN_ARGS']}"] if "VGGT_RUN_ARGS" in env else []
    lines = [line.strip() for line in lines if line.strip().startswith("vggt-quant")]
    assert len(lines) >= 4
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])


@guides
def test_a_comparison_in_a_command_of_ones_own_demands_the_gpu_that_is_paid_for(guide):
    """start.sh does so for its own command only."""
    text = [env.get("VGGT_COMMAND", "") for env in environments(guide)]
    lines = [line.strip() for command in text for line in re.split(SHELL, command) if "vggt-quant compare" in line]
    assert lines
    for line in lines:
        assert parser().parse_args(shlex.split(line)[1:]).device == "cuda", line


@guides
def test_a_second_pod_for_a_run_gets_the_variables_of_the_first(guide):
    """Else, once the first has ended, it would do the run anew with other photos."""
    found = [words for words in pod_commands(guide) if "--another" in words]
    assert found
    for words in found:
        env = settings.variables(cli._parser().parse_args(words).env, [])
        name = env.pop("VGGT_RUN_NAME")
        env.pop("VGGT_WHEN_BUSY")
        firsts = [words for words in pod_commands(guide) if words[:4] == ["pod", "up", "--run", name]]
        assert env == settings.variables(cli._parser().parse_args(firsts[0]).env, []) and env


@guides
def test_a_pod_that_runs_nothing_has_a_limit_on_its_price_and_its_hours(guide):
    found = [cli._parser().parse_args(words) for words in pod_commands(guide) if "VGGT_RUN=no" in words]
    assert found
    for parsed in found:
        assert parsed.max_price <= 1 and "VGGT_MAX_HOURS" in settings.variables(parsed.env, [])


@guides
def test_every_scene_that_is_fetched_exists(guide):
    (scenes,) = re.findall(r"for scene in (.+?);", guide.read_text())
    assert set(scenes.split()) <= set(eth3d.SCENES)
    assert str(len(eth3d.SCENES)) in guide.read_text()


@guides
def test_settings_are_exactly_those_of_the_start_script_with_its_defaults(guide):
    named = set(re.findall(r"VGGT_\w+", guide.read_text()))
    assert named == {line.split()[0] for line in variables.FILE.read_text().splitlines() if line.startswith("VGGT_")}
    of_package = set(re.findall(r'"(VGGT_QUANT_\w+)"', PACKAGE))
    assert named - of_package <= set(re.findall(r"VGGT_[A-Z_]+", SCRIPTS)) <= named
    rows = {row[0].strip("`"): row[1] for row in table(guide, "variable")}
    assert set(rows) == named
    defaults = dict(re.findall(r"\$\{(VGGT_\w+):-([^}]*)\}", SCRIPTS))
    for name, default in rows.items():
        assert default.startswith("`") == bool(defaults.get(name)), name
        assert default.strip("`") == defaults.get(name) or not defaults.get(name), name


@guides
def test_prices_are_those_of_the_file_with_their_dates(guide):
    prices = json.loads((FOLDER / "prices.json").read_text())
    rows = table(guide, "GPU")
    assert {row[0] for row in rows} == set(prices["gpus"])
    for gpu, hour, ten_minutes, read in rows:
        entry = prices["gpus"][gpu]
        assert (float(hour), read) == (entry["usd_per_hour_secure"], entry["read"])
        assert float(ten_minutes) == pytest.approx(float(hour) / 6, abs=0.00501)  # rounded to cents
    volume, disk = prices["network_volume"], prices["container_disk"]
    first, beyond = volume["usd_per_gb_month_first_1000_gb"], volume["usd_per_gb_month_beyond"]
    storage = table(guide, "storage")
    assert [float(row[1]) for row in storage] == [first, beyond, disk["usd_per_gb_month"]]
    assert [row[3] for row in storage] == [volume["read"], volume["read"], disk["read"]]
    assert prices["recheck"] in guide.read_text()


@guides
def test_sums_in_the_guide_follow_from_prices_settings_and_what_was_measured(guide):
    prices = cost.read_prices(FOLDER / "prices.json")
    pod = settings.read_pod(FOLDER / "pod.json")
    template = settings.read_template(FOLDER / "template.json", None)
    text = guide.read_text()
    assert re.search(rf"{pod.volume.size} GB.{{1,4}}{prices.volume_month(pod.volume.size):.2f}(?!\d)", text)
    asked = [prices.gpu_hour(gpu) for gpu in pod.gpus]
    assert f"${min(asked):.2f}/h" in text and f"${max(asked):.2f}/h" in text
    hour = template["disk"] * prices.disk_gb_month / cost.HOURS_PER_MONTH
    assert re.search(rf"{template['disk']} GB.{{1,6}}{hour:.4f}(?!\d)", text) and f"/ {cost.HOURS_PER_MONTH}" in text
    # 17 s are quoted from docs/LOG.md, and so is the GPU that they hold for.
    assert "fixed cost there is 15-17 s" in (ROOT / "docs" / "LOG.md").read_text()
    price = prices.gpu_hour("NVIDIA H100 80GB HBM3")
    jobs = int(re.search(r"\| [^|]*?(\d+) x 17 s", text)[1])
    assert f"{jobs} x 17 s = {jobs * 17 / 60:.1f} " in text and f"${jobs * 17 / 3600 * price:.2f}" in text


@guides
def test_the_guide_says_how_often_and_how_long_the_client_tries(guide):
    text = guide.read_text()
    assert text.count(f"{api.Pace().listing_s:g} s") == 2
    assert re.search(rf"{api.ATTEMPTS} (times|次).{{1,12}}{creation.REQUESTS} (to|次)", text)


@guides
def test_every_file_and_section_that_is_named_exists(guide):
    text = guide.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (guide.parent / target).exists(), target
    for path in re.findall(r"`((?:runpod|docker|docs|workflow|config|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(pod|template|prices)\.json`", text):
        assert (FOLDER / f"{name}.json").exists()
    titles = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= titles


@guides
def test_every_flag_in_running_text_is_one(guide):
    """`--run`, `--gpu` and the like belong to the client or to `compare`."""
    files = [FOLDER / "client" / "cli.py", *(ROOT / "vggt_quant" / "cli").glob("*.py")]
    known = " ".join(path.read_text() for path in files)
    for flag in set(re.findall(r"`(--[\w-]+)", guide.read_text())) - {"--resources"}:
        assert f'"{flag}"' in known, flag


@guides
def test_messages_under_troubleshooting_are_said_by_client_or_script(guide):
    ours = SCRIPTS + "".join(path.read_text() for path in (FOLDER / "client").glob("*.py"))
    said = ("There is no folder", "is full", "not to be had", "will not work: ", "is at work on run")
    for message in (*said, "is a placeholder", "left out; ", "may exist all the same", "is not on the volume"):
        assert f"`{message}" in guide.read_text() and message in ours, message


def test_both_languages_have_the_same_commands_and_the_same_figures():
    english, chinese = GUIDES
    assert list(commands(english)) == list(commands(chinese))
    assert len(re.findall(r"^## ", english.read_text(), re.M)) == len(re.findall(r"^## ", chinese.read_text(), re.M))
    for ours, theirs in zip(*(figures_of_tables(guide) for guide in GUIDES), strict=True):
        assert ours == theirs


def figures_of_tables(guide):
    """Numbers and code of each row, in no order since languages differ in theirs."""
    rows = re.findall(r"^\|.*\|$", guide.read_text(), re.M)
    return [sorted(re.findall(r"`[^`]+`|\d[\d.-]*\d|\d", row)) for row in rows]


@pytest.mark.parametrize("page", MAIN_PAGES, ids=lambda path: path.name)
def test_the_main_page_leads_to_the_guide_of_its_language(page):
    assert f"](runpod/{page.name})" in page.read_text()


@pytest.mark.parametrize("page", MAIN_PAGES, ids=lambda path: path.name)
def test_every_command_of_the_main_page_is_one(page):
    targets = set(re.findall(r"^([\w./]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *words in commands(page):
        if program == "make":
            assert words[0] in targets
        elif program.endswith("vggt-quant"):
            parser().parse_args(words)
        elif program == "python":
            cli._parser().parse_args(words[2:])
        else:
            assert program in FOREIGN, program
