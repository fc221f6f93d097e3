"""What the HTTP face answers: one explicit table of paths.

* `GET /v1/status`: the process is alive; its version and ids. Always 200.
* `GET /v1/ready`: 200 when clients can be sent here, otherwise 503 with the reasons; where not everybody may know all,
  they are in short. Load balancers ask this.
* `GET /v1/cluster`: the agents of the cluster, as this one sees them; `warp.cluster.describe` has the fields.
* `GET /v1/jobs`: what the jobs that look after data have done at this agent, and what they have still to do.
* `GET /v1/object-store`: what the object store can do and was asked for; what `warp cost` reads.
* `GET /v1/trace/last`: what recent and slow requests waited for, as docs/operations.md describes it.
* `GET /metrics`: the Prometheus text format.

In a cluster, also what agents ask of each other: `GET /internal/v1/chunk`, see `warp.http.chunks`.

Status and readiness are open to everybody, what agents ask of each other has its own authentication, and `Access`
decides about all the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from warp.http.access import Access
from warp.http.messages import Handler, Request, Response, error_response, json_response
from warp.metrics import CONTENT_TYPE

OPEN_PATHS = ("/v1/status", "/v1/ready")
"""What load balancers ask, who need no secret for it."""


@dataclass(frozen=True, slots=True)
class AgentFace:
    """What the HTTP face asks of the agent.

    `status` returns the fields of /v1/status. `reasons_not_ready` is empty when the agent is ready. `metrics` renders
    /metrics. `trace`, `object_store`, `cluster` and `jobs` return the fields of /v1/trace/last, /v1/object-store,
    /v1/cluster and /v1/jobs.
    """

    status: Callable[[], Mapping[str, Any]]
    reasons_not_ready: Callable[[], Awaitable[list[str]]]
    metrics: Callable[[], Awaitable[bytes]]
    trace: Callable[[], Mapping[str, Any]]
    object_store: Callable[[], Mapping[str, Any]]
    cluster: Callable[[], Mapping[str, Any]]
    jobs: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class App:
    """The handler of every request: finds the path in the table."""

    face: AgentFace
    internal: Mapping[str, Handler] = field(default_factory=dict)
    """What only other agents ask for, by path; not told to those who ask what there is."""
    access: Access | None = None
    """Decides who may ask; None lets everybody."""
    routes: Mapping[str, Handler] = field(init=False)

    def __post_init__(self) -> None:
        routes = {
            "/v1/status": self._status,
            "/v1/ready": self._ready,
            "/v1/cluster": self._cluster,
            "/v1/jobs": self._jobs,
            "/v1/object-store": self._object_store,
            "/v1/trace/last": self._trace,
            "/metrics": self._metrics,
            "/": self._index,
            **self.internal,
        }
        object.__setattr__(self, "routes", routes)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        is_open = request.path in OPEN_PATHS or request.path in self.internal
        if self.access is not None and not is_open:
            refusal = await self.access.refusal(request, shows_cluster=request.path in self._showing)
            if refusal is not None:
                return refusal
        handler = self.routes.get(request.path)
        if handler is None:
            return error_response(404, f"nothing here; try one of {', '.join(self._public)}")
        if request.method not in ("GET", "HEAD"):
            return error_response(405, f"{request.path} answers GET and HEAD", ("Allow", "GET, HEAD"))
        return await handler(request)

    @property
    def _showing(self) -> list[str]:
        """The paths that show facts about the cluster."""
        return [path for path in self._public if path not in OPEN_PATHS and path != "/"]

    @property
    def _public(self) -> list[str]:
        return [path for path in self.routes if path not in self.internal]

    async def _status(self, _request: Request) -> Response:
        return json_response(200, {"status": "alive", **self.face.status()})

    async def _ready(self, _request: Request) -> Response:
        reasons = await self.face.reasons_not_ready()
        if self.access is not None:
            # What failed, and not how: that names hosts, roles and buckets, and anybody may ask. The log has it.
            reasons = [reason.partition(":")[0] for reason in reasons]
        return json_response(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    async def _trace(self, _request: Request) -> Response:
        return json_response(200, self.face.trace())

    async def _object_store(self, _request: Request) -> Response:
        return json_response(200, self.face.object_store())

    async def _cluster(self, _request: Request) -> Response:
        return json_response(200, self.face.cluster())

    async def _jobs(self, _request: Request) -> Response:
        return json_response(200, self.face.jobs())

    async def _metrics(self, _request: Request) -> Response:
        return Response(200, await self.face.metrics(), CONTENT_TYPE)

    async def _index(self, _request: Request) -> Response:
        paths = "".join(f"{path}\n" for path in self._public if path != "/")
        return Response(200, f"Warp agent. Paths:\n{paths}".encode(), "text/plain; charset=utf-8")
