"""The command line: each command parses, calls one function, and ends with 0 (done), 1 (failed) or 2 (wrong input)."""

import argparse
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import runpod
from runpod.client import api, catalog, cost, logs, output, pods, settings, status, templates, volumes
from runpod.client.errors import RunpodError


def main(argv: Sequence[str] | None = None, *, pace: api.Pace | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    arguments.pace = pace or api.Pace()
    try:
        arguments.run(arguments)
    except ValueError as error:
        output.note(f"error: {error}")
        return 2
    except RunpodError as error:
        output.note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 0 if arguments.command == "logs" else 1
    return 0


def template_apply(arguments: argparse.Namespace) -> None:
    """Create the template or bring it up to date."""
    template = settings.read_template(arguments.template_file, arguments.image)
    if not arguments.dry_run:
        settings.check_image(template["image"])
        templates.apply(_connect(arguments), template)
        return
    output.show_request("POST", "/templates", template)
    output.note(f"If template {template['name']} exists, what differs is sent by PATCH. A template costs nothing.")
    try:
        settings.check_image(template["image"])
    except ValueError as error:
        output.note(f"warning: {error}")


def volume_create(arguments: argparse.Namespace) -> None:
    """Create the network volume or let it grow."""
    wanted = _pod_settings(arguments).volume
    if arguments.dry_run:
        output.show_request("POST", "/network-volumes", volumes.create_body(wanted))
        output.note(f"Estimate: {cost.volume_estimate(cost.read_prices(arguments.prices_file), wanted.size)}.")
        return
    volumes.ensure(_connect(arguments), wanted)


def pod_up(arguments: argparse.Namespace) -> None:
    """Rent a pod for the run."""
    pod = _pod_settings(arguments)
    for name, value in pod.env.items():
        if output.is_secret(name, value):
            output.note(
                f"warning: {name} will be readable in RunPod's console; store it there and use --secret {name}=..."
            )
    if not arguments.dry_run:
        options = {"another": arguments.another, "max_price": arguments.max_price, "wait_s": 60 * arguments.wait}
        pods.up(_connect(arguments), pod, **options)
        return
    prices = cost.read_prices(arguments.prices_file)
    pod = cost.affordable(pod, prices.gpu_hour, arguments.max_price)
    template = {**settings.read_template(arguments.template_file, None), "id": f"<id of template {pod.template}>"}
    volume = {"id": f"<id of volume {pod.volume.name}>", "dataCenter": pod.volume.dataCenter}
    output.show_request("POST", "/pods", pods.create_bodies(pod, pod.name, template, volume)[0])
    if pod.gpus[1:]:
        output.note(f"Without capacity the same with gpu.id {', then '.join(pod.gpus[1:])}.")
    for line in cost.pod_estimate(prices, pod, hours=arguments.hours, disk_gb=template.get("disk", 0)):
        output.note(line)


def show_status(arguments: argparse.Namespace) -> None:
    """Print pods and volumes."""
    status.show(_connect(arguments), cost.read_prices(arguments.prices_file))


def show_logs(arguments: argparse.Namespace) -> None:
    """Print log lines."""
    logs.show(_connect(arguments), _run_name(arguments), follow=arguments.follow, tail=arguments.tail)


def down(arguments: argparse.Namespace) -> None:
    """Stop or terminate a pod."""
    name = _run_name(arguments)
    if not arguments.dry_run:
        pods.down(_connect(arguments), name, arguments.how)
        return
    if arguments.how != "stop":
        output.show_request("DELETE", f"/pods/<id of pod {name}>", None)
    if arguments.how is None:
        output.note("or, if the pod has no network volume:")
    if arguments.how != "terminate":
        output.show_request("POST", f"/pods/<id of pod {name}>/action", {"action": "stop"})
    output.note(
        "Estimate: a terminated pod costs nothing; the disk of a stopped one and any network volume go on costing."
    )


def show_gpus(arguments: argparse.Namespace) -> None:
    """Print the catalog of GPUs."""
    catalog.show(_connect(arguments), _pod_settings(arguments))


def _connect(arguments: argparse.Namespace) -> api.Api:
    return api.from_environment(timeout_s=arguments.timeout, pace=arguments.pace)


def _run_name(arguments: argparse.Namespace) -> str:
    return arguments.name or settings.read_pod(arguments.pod_file).name


def _pod_settings(arguments: argparse.Namespace) -> settings.PodSettings:
    """pod.json with what the command line says instead."""
    pod = settings.read_pod(arguments.pod_file)
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    volume = {"name": given.get("volume"), "size": given.get("size"), "dataCenter": given.get("data_center")}
    env = settings.variables(given.get("env", ()), given.get("secret", ()))
    return dataclasses.replace(
        pod,
        name=given.get("run_name", pod.name),
        gpus=given.get("gpu", pod.gpus),
        volume=dataclasses.replace(pod.volume, **{key: value for key, value in volume.items() if value is not None}),
        env={**pod.env, **env},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runpod", description=runpod.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    template = commands.add_parser("template", help="the image and its settings").add_subparsers(required=True)
    _add_template_apply(template.add_parser("apply", help="create the template or bring it up to date"))
    volume = commands.add_parser("volume", help="the disk that outlives pods").add_subparsers(required=True)
    _add_volume_create(volume.add_parser("create", help="create the network volume or let it grow"))
    pod = commands.add_parser("pod", help="the machine").add_subparsers(required=True)
    _add_pod_up(pod.add_parser("up", help="rent a pod for a run"))
    _add_common(commands.add_parser("status", help="pods and volumes with what they cost"), show_status)
    _add_logs(commands.add_parser("logs", help="what a pod prints"))
    _add_down(commands.add_parser("down", help="end a pod"))
    gpus = commands.add_parser("gpus", help="GPUs with price and availability")
    gpus.add_argument("--data-center", help="where to look (pod.json's)")
    _add_common(gpus, show_gpus)
    return parser


def _add_template_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="container image instead of template.json's, e.g. ghcr.io/you/vggt_quant:0.1.0")
    _add_common(parser, template_apply, changes=True)


def _add_volume_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", dest="volume", help="name of the volume (pod.json's)")
    parser.add_argument("--size", type=int, metavar="GB", help="10 to 4096; grows only (pod.json's)")
    parser.add_argument("--data-center", help="where it lies for good (pod.json's); `gpus` shows what is there")
    _add_common(parser, volume_create, changes=True)


def _add_pod_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", dest="run_name", metavar="NAME", help="name of the run and its pod (pod.json's)")
    parser.add_argument("--gpu", action="append", metavar="ID", help="try this GPU (again for more; pod.json's list)")
    parser.add_argument(
        "--max-price",
        type=_positive,
        metavar="DOLLARS_PER_HOUR",
        help="leave out GPUs that cost more, all of the pod together (no limit)",
    )
    parser.add_argument("--volume", metavar="NAME", help="name or id of the network volume (pod.json's)")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="variable for the pod (again for more)")
    parser.add_argument(
        "--secret", action="append", metavar="NAME=SECRET", help="variable from a secret kept by RunPod"
    )
    parser.add_argument("--another", action="store_true", help="even if the run has a pod already")
    parser.add_argument("--wait", type=_positive, default=0.0, metavar="MINUTES", help="wait so long for it to run (0)")
    parser.add_argument("--hours", type=_positive, default=1.0, help="for the estimate of a dry run (1)")
    _add_common(parser, pod_up, changes=True)


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="name or id of the pod (pod.json's name)")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the pod ends")
    parser.add_argument("--tail", type=_number_of_lines, default=100, metavar="LINES", help="0 to 5000 (100)")
    _add_common(parser, show_logs)


def _add_down(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="name or id of the pod (pod.json's name)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--stop", dest="how", action="store_const", const="stop", help="keep its disk")
    how.add_argument("--terminate", dest="how", action="store_const", const="terminate", help="delete it for good")
    _add_common(parser, down, changes=True)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _number_of_lines(text: str) -> int:
    if not text.isdigit() or int(text) > 5000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 5000")
    return int(text)


def _add_common(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], *, changes: bool = False
) -> None:
    folder = settings.FOLDER
    parser.set_defaults(run=run)
    if changes:
        parser.add_argument("--dry-run", action="store_true", help="show the request and its cost; contact nobody")
    parser.add_argument("--timeout", type=_positive, default=60.0, metavar="SECONDS", help="for each answer (60)")
    parser.add_argument("--debug", action="store_true", help="log each request on stderr")
    parser.add_argument("--pod-file", type=Path, default=folder / "pod.json", help=argparse.SUPPRESS)
    parser.add_argument("--template-file", type=Path, default=folder / "template.json", help=argparse.SUPPRESS)
    parser.add_argument("--prices-file", type=Path, default=folder / "prices.json", help=argparse.SUPPRESS)
