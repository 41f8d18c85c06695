"""Baseline: a bare pass-through by Starlette and httpx, as one would write it in ten minutes.

It reads the JSON once and does nothing with it. Its client is httpx's own, transport and limits as they
come.
"""

import json
import socket
import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.request import PATH


def application(upstream: str) -> Starlette:
    """What passes each chat request through to the server at `upstream`."""
    client = httpx.AsyncClient(timeout=60)

    async def chat(request: Request) -> Response:
        body = await request.body()
        json.loads(body)
        fields = {name: request.headers[name] for name in ("authorization", "content-type")}
        answer = await client.post(upstream + PATH, content=body, headers=fields)
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])

    return Starlette(routes=[Route(PATH, chat, methods=["POST"])])


def main(upstream: str) -> None:
    """Serve on a free port, and say which."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"a bare pass-through: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        application(upstream), loop="uvloop", http="httptools", ws="none", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
