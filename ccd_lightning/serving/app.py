"""The HTTP interface: recommendations, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TextIO

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ccd_lightning.serving.live import LiveModel
from ccd_lightning.serving.metrics import Measured, ServingMetrics

DEFAULT_K = 20


def application(live: LiveModel, poll: float = 2.0) -> FastAPI:
    """The server's application.

    Args:
        live: what is served.
        poll: seconds between two looks for a new export.
    """
    metrics = ServingMetrics(live)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher = asyncio.create_task(_watch(live, poll))
        yield
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher

    app = FastAPI(title="ccd-lightning recommendations", lifespan=lifespan)

    app.add_middleware(Measured, metrics=metrics)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        told = [f"`{entry['loc'][-1]}` is {entry.get('input')!r}: {entry['msg']}" for entry in error.errors()]
        return JSONResponse({"detail": ". ".join([*told, "/docs lists the parameters"])}, 422)

    @app.get("/recommend/{user:path}")
    async def recommend(
        user: Annotated[str, Path(min_length=1, description="raw id")],
        k: Annotated[int, Query(ge=1, description="items at most")] = DEFAULT_K,
        seen: Annotated[bool | None, Query(description="whether items that the user has seen may come back")] = None,
    ) -> dict[str, Any]:
        """The best items of a user, in raw ids."""
        answer = _answer(live, user, k, seen)
        if not answer["known"]:
            metrics.unknown.inc()
        return answer

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """What is served, and whether a newer export was refused."""
        return _health(live)

    @app.get("/metrics")
    async def measured() -> Response:
        """Counters and latencies in the text format of Prometheus."""
        return Response(metrics.text(), media_type=metrics.media_type)

    return app


def _answer(live: LiveModel, user: str, k: int, seen: bool | None) -> dict[str, Any]:
    # One look at the model, so that a swap cannot mix two of them in an answer.
    model = live.model
    size, block = len(model.items), model.manifest["block"]
    if k > size:
        raise HTTPException(422, f"`k` is {k}, but the catalogue has {size} items: ask for 1 to {size}.")
    if seen is False and not model.has_seen:
        raise HTTPException(
            422,
            "`seen` is false, but this export carries no seen items: leave `seen` out, or export with `--seen true`.",
        )
    try:
        raw = model.user_of(user)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    found = model.recommend(raw, k, seen=bool(seen))
    answer = {
        "user": raw,
        "known": found.known,
        "items": [{"item": item, "score": score} for item, score in zip(found.items, found.scores, strict=True)],
        "version": model.version,
    }
    if not found.known:
        answer["note"] = (
            f"The model does not know this user: these are the most popular items of block {block}, scored by their"
            " interactions."
        )
    return answer


def _health(live: LiveModel) -> dict[str, Any]:
    manifest = live.model.manifest
    described = {name: manifest[name] for name in ("role", "block", "num_users", "num_items")}
    return {
        "status": "ok" if live.refused is None else "degraded",
        "version": live.model.version,
        **described,
        "seen": live.model.has_seen,
        "since": live.since,
        "refused": live.refused,
    }


async def _watch(live: LiveModel, poll: float) -> None:
    told: str | None = None
    while True:
        await asyncio.sleep(poll)
        if await asyncio.to_thread(live.refresh):
            _say(f"Now serving version {live.model.version} (block {live.model.manifest['block']}).", sys.stdout)
        # A folder that is being copied is refused for another reason at every look.
        if live.is_settled and live.refused != told:
            told = live.refused
            if told is not None:
                _say(
                    f"warning: the new export is refused, and version {live.model.version} stays in service: {told}",
                    sys.stderr,
                )


def _say(line: str, stream: TextIO) -> None:
    """A log whose reader has died, or that is full, is no reason to look no longer."""
    with suppress(OSError, ValueError):
        print(line, file=stream, flush=True)
