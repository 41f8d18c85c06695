"""The command line: weir serve, demo, simulate, check, keys, quota, count, tail, health."""

import argparse
import http.client
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from service import __version__
from service import settings as configuration
from service.count import arguments as of_count
from service.quota import arguments as of_quota
from service.settings import Settings, SettingsError
from service.tail import arguments as of_tail


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 good, 1 bad, 2 wrongly asked."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weir", description="Measures and limits tokens of language models."
    )
    parser.add_argument("--version", action="version", version=f"weir {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the API and operations")
    configuration.add_flags(serve)
    serve.set_defaults(command=_serve)

    demo = commands.add_parser("demo", help="see a user being counted, charged, refused and let in again")
    demo.add_argument("--check", action="store_true", help="assert what is shown, and exit 0 or 1")
    demo.add_argument("--real", action="store_true", help="ask UPSTREAM_URL with OPENAI_API_KEY: costs money")
    demo.set_defaults(command=_demo)

    simulate = commands.add_parser("simulate", help="serve a simulated model")
    simulate.add_argument("--host", default="127.0.0.1")
    simulate.add_argument("--port", type=_port, default=9100, help="0 takes a free one")
    simulate.add_argument("--latency", type=float, default=0.0, help="seconds before an answer begins")
    simulate.add_argument("--rate", type=float, default=0.0, help="tokens a second of a stream; 0: no pause")
    simulate.add_argument("--tokens", type=int, default=40, help="tokens of an answer")
    simulate.add_argument("--fixed-usage", action="store_true", help="count nothing: cheaper, for benchmarks")
    simulate.set_defaults(command=_simulate)

    check = commands.add_parser("check", help="validate an API definition")
    check.add_argument("file", type=Path, nargs="?", help="without, the one that comes with Weir")
    check.set_defaults(command=_check)

    keys = commands.add_parser("keys", help="virtual keys").add_subparsers(required=True, metavar="COMMAND")
    new = keys.add_parser("new", help="make a key: shown once, with its line for the keys file")
    new.add_argument("--id", required=True, help="the name of its holder, which is logged")
    new.set_defaults(command=_new_key)

    quota = commands.add_parser("quota", help="see and change how a subject stands with its limits")
    of_quota.add(quota)
    quota.set_defaults(command=_quota)

    count = commands.add_parser(
        "count", help="count the prompt of a request body, or compare counts with the API's"
    )
    of_count.add(count)
    count.set_defaults(command=_count)

    tail = commands.add_parser("tail", help="see exchanges as they end")
    of_tail.add(tail)
    tail.set_defaults(command=_tail)

    health = commands.add_parser("health", help="ask a running gateway whether it is ready")
    health.set_defaults(command=_health)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 65535, not {text!r}")
    return int(text)


def _settings(options: argparse.Namespace, *, to_serve: bool = False) -> Settings | None:
    try:
        return configuration.load(vars(options), to_serve=to_serve)
    except SettingsError as wrong:
        _complain(wrong.errors)
        return None


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options, to_serve=True)
    if settings is None:
        return 2
    with tempfile.TemporaryDirectory(prefix="weir-metrics-") as metrics:
        configuration.share_metrics(metrics)
        from service import processes  # what it imports looks for the directory

        return processes.run_or_say_why(lambda: processes.serve(settings, metrics), _complain)


def _demo(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings is None:
        return 2
    from service import demo

    return demo.run(settings, check=options.check, real=options.real)


def _simulate(options: argparse.Namespace) -> int:
    from service import processes

    simulate = partial(
        processes.simulate,
        host=options.host,
        port=options.port,
        latency=options.latency,
        rate=options.rate,
        tokens=options.tokens,
        count=not options.fixed_usage,
    )
    return processes.run_or_say_why(simulate, _complain)


def _check(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings is None:
        return 2
    from service import app, interceptors
    from service.adapters.metrics import Metrics
    from service.domain.api import DefinitionError

    path = options.file or app.default_definition()
    try:
        api = app.read_definition(path, settings)
    except DefinitionError as wrong:
        _complain(wrong.errors)
        return 1
    tools = interceptors.Tools(api, None, None, None, Metrics(), str)
    if errors := interceptors.unfit(tools):
        _complain([f"{path}: {error}" for error in errors])
        return 1
    print(f"{path}: good ({api.title} {api.version}, revision {api.revision}, {api.lifecycle})")
    return 0


def _new_key(options: argparse.Namespace) -> int:
    from service.adapters.keyring import new_key

    try:
        key, line = new_key(options.id)
    except ValueError:
        shown = repr(options.id[:80])
        _complain([f"--id: expected up to 64 letters, digits and . _ @ : - in it, not {shown}"])
        return 2
    print(f"key, shown this once: {key}\nfor the keys file:    {line}")
    return 0


def _quota(options: argparse.Namespace) -> int:
    settings = _settings(options, to_serve=True)
    if settings is None:
        return 2
    from service.quota import command

    return command.run(settings, options, _complain)


def _count(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings is None:
        return 2
    from service.count import command

    return command.run(settings, options, _complain)


def _tail(options: argparse.Namespace) -> int:
    settings = _settings(options, to_serve=options.user is not None)
    if settings is None:
        return 2
    from service.tail import command

    return command.run(settings, options, _complain)


def _health(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings is None:
        return 2
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.ops_host, settings.ops_host)
    connection = http.client.HTTPConnection(host, settings.ops_port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        _complain([f"{host}:{settings.ops_port}: {error}"])
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


def _complain(errors: Sequence[str]) -> None:
    for error in errors:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
