"""Demo: a minute in the life of a gateway, with a store and a model of its own."""

import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from service.adapters.ledger.embedded import EmbeddedStoreError
from service.demo import watch
from service.demo.house import COLUMNS, LIMIT, WINDOW, House, Shown, build
from service.demo.program import PATIENCE, Failed
from service.settings import Settings

_HEAD = COLUMNS.format("user", "answer", "status", "estimate", "used", "remaining", "retry-after", "")


def run(settings: Settings, *, check: bool, real: bool) -> int:
    """Show it, and keep serving; with `check`, assert it and return 0 or 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends here in any case
    try:
        with ExitStack() as stack:
            house = build(stack, settings, real=real)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-demo-")))
            prometheus = stack.enter_context(watch.prometheus(house.operations, folder))
            _show(house)
            _look(house, prometheus)
            print("\nok" if check else house.farewell(prometheus), flush=True)
            if not check:
                house.wait()
    except (Failed, EmbeddedStoreError) as fault:
        print(f"\nfailed: {fault}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


def _show(house: House) -> None:
    """The story: two users within their quota, one who is not, who waits and is let in again."""
    print(f"two workers, one ledger; each user has {LIMIT} tokens per {WINDOW}\n\n{_HEAD}")
    for user, stream in (("alice", False), ("bob", True), ("carol", False), ("alice", True)):
        shown = _say(house.ask(user, stream=stream))
        _promise(shown.status == 200, f"{user} was not let in")
        _promise(0 < shown.used <= shown.estimate, "the estimate was not corrected to less")
    refused = _until_refused(house)
    _promise(
        refused.retry_after is not None and 0 < refused.retry_after < PATIENCE, "no time to wait was told"
    )
    others = _say(house.ask("bob", stream=False), "others are not concerned")
    _promise(others.status == 200, "bob paid for alice")
    print(f"        ... alice waits {refused.retry_after:.1f}s, as she was told ...")
    time.sleep(refused.retry_after or 0)
    again = _say(house.ask("alice", stream=True), "and is let in again")
    _promise(again.status == 200, "alice was not let in again")
    _settle_down(house)


def _until_refused(house: House) -> Shown:
    for attempt in range(20):
        shown = house.ask("alice", stream=attempt % 2 == 1)
        if shown.status == 429:
            return _say(shown, "refused")
        _promise(_say(shown).status == 200, "an answer was neither 200 nor 429")
    raise Failed("alice was never refused")


def _settle_down(house: House) -> None:
    """When all is quiet, nothing is open, and the metrics say what was seen."""
    until = time.monotonic() + PATIENCE
    while house.metric("weir_reservations_open") or not house.metric("weir_refusals_total"):
        _promise(time.monotonic() < until, "reservations stayed open, or the metrics are silent")
        time.sleep(0.2)
    print("\nnothing is open any more; the metrics have counted every answer")


def _look(house: House, prometheus: str | None) -> None:
    """What operators see of it."""
    lines = watch.seen(house.store, count=house.asked)
    print("\nwhat `weir tail` shows of it:", "...", *lines[-6:], sep="\n")
    refusals = [line for line in lines if " 429 " in line]
    _promise((len(lines), len(refusals)) == (house.asked, 1), "weir tail does not show every exchange")
    if prometheus:
        answers = watch.counted(prometheus)
        print(f"\nPrometheus at {prometheus} knows of {answers:.0f} answers")
        _promise(answers > 0, "Prometheus knows of no answer")


def _say(shown: Shown, remark: str = "") -> Shown:
    print(shown.line(remark), flush=True)
    return shown


def _promise(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Failed(otherwise)
