"""Operations: what the people who run Weir ask it, on a port of its own."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.adapters import metrics as numbers
from service.adapters.ledger import LedgerAway
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.heartbeat import counted
from service.adapters.ledger.leaderboard import Leaders
from service.adapters.ledger.wire import Wire, maxmemory_policy, open_wire
from service.domain.api import Api

STARTING, READY, DRAINING = 0, 1, 2  # what a worker is doing


def operations(
    api: Api,
    *,
    url: str,
    metrics: str,
    states: Sequence[int],
    names: Mapping[str, str] = MappingProxyType({}),
) -> Starlette:
    """The app: `/metrics` of all processes that count into that directory, `/livez`, `/readyz`.

    `names` are the digests of users that metrics may show by name.
    """
    wire = open_wire(url, lua.load(), connections=1)
    leaders = Leaders(wire)

    async def show(request: Request) -> Response:
        top = numbers.TopSubjects(await leaders.places(), names)
        accept = request.headers.get("accept", "")
        page, kind = numbers.page(accept, directory=metrics, others=[top])
        return Response(page, headers={"content-type": kind})

    async def livez(request: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(request: Request) -> Response:
        found = await _ledger(wire)
        without = _without_ledger(api) if found != "ok" else {}
        ready = READY in states and DRAINING not in states and "refuse" not in without.values()
        said = {
            "ready": ready,
            "workers": {"ready": list(states).count(READY), "of": len(states)},
            "draining": DRAINING in states,
            "ledger": found,
            "without_ledger": without,
            "revision": api.revision,
        }
        return JSONResponse(said, status_code=200 if ready else 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await leaders.close()
        await wire.close()

    routes = [Route("/metrics", show), Route("/livez", livez), Route("/readyz", readyz)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _ledger(wire: Wire) -> str:
    """`ok`, or what is wrong with it."""
    try:
        policy = await maxmemory_policy(wire)
        await counted(wire, wire.scripts.heartbeat)  # for it may be there, and not allow what we need
    except LedgerAway as away:
        return f"away: {away}"
    if policy in ("noeviction", "unknown"):
        return "ok"
    return f"maxmemory-policy is {policy}: quotas may be forgotten; it must be noeviction"


def _without_ledger(api: Api) -> dict[str, str]:
    """What becomes of each enforced policy while the ledger is away: refuse, allow or local."""
    options = [*(step.options for step in api.request), *api.plans.values()]
    policies = [policy for one in options for policy in getattr(one, "policies", ()) if policy.enforce]
    return {policy.name: str(policy.on_ledger_failure) for policy in policies}
