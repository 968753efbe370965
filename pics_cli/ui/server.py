"""The server of the page: its files, and one address for each thing that the page asks for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from pics_cli.core.images.sheets import COLOURS
from pics_cli.core.inference.inputs import BUNDLED_SAMPLES
from pics_cli.core.inference.plan import EXPLANATIONS, composed_path
from pics_cli.core.inference.warm import WarmModel
from pics_cli.core.inference.worker import InferenceReport
from pics_cli.errors import BadSample, PicsError
from pics_cli.ui.downloads import folder_zip, sample_zip
from pics_cli.ui.guard import Guard
from pics_cli.ui.job import Job, error_text, explained_file, job_json
from pics_cli.ui.queue import Queue
from pics_cli.ui.requests import MAX_UPLOAD, NotThere, picture_response, read_drawing, read_upload
from pics_cli.ui.session import MAX_OBJECTS, Session
from pics_cli.ui.sessions import Sessions

_STATIC = Path(__file__).parent / "static"
_MOMENT = 0.25  # seconds
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


Handler = Callable[["Server", Request, Session], Awaitable[Response]]


class Server:
    """The application, `app`, around one warm model.

    Args:
        model: composites.
        token: see `Guard`.
    """

    def __init__(self, model: WarmModel, token: str | None = None) -> None:
        self.model = model
        # Where the model lies is nobody's business.
        name = model.job.model
        self._name = Path(name).name if Path(name).exists() else name
        self.sessions = Sessions()
        self.queue = Queue(self._composite)
        self._files = {
            f"/{'' if path.name == 'index.html' else path.name}": (path.read_bytes(), _TYPES[path.suffix])
            for path in _STATIC.iterdir()
            if path.suffix in _TYPES
        }
        self._examples = {path.name: path for path in _examples()}
        # Decoding may take a gigabyte: one upload at a time.
        self._decoding = anyio.Semaphore(1)
        routes = [
            *(Route(path, self._file) for path in self._files),
            Route("/api/page", self._page),
            Route("/api/examples/{name}", self._example),
            Route("/api/sessions", self._new_session, methods=["POST"]),
            *(
                Route(f"/api/sessions/{{session}}{path}", self._bound(handler), methods=[method])
                for method, path, handler in _ROUTES
            ),
        ]
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, token=token)],
            exception_handlers={
                PicsError: _bad_request,
                BadSample: _bad_request,
                NotThere: _not_there,
                ClientDisconnect: _nobody_there,
            },
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End the queue and delete all that was uploaded."""
        self.queue.close()
        self.sessions.close()

    def _composite(self, job: Job) -> InferenceReport:
        return self.model.composite(job.job, [job.sample], job.progress, job.check)

    def _bound(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            session = self.sessions.find(request.path_params["session"])
            if session is None:
                raise NotThere("error: this page is not known any more: the server was started anew, or it was idle")
            return await handler(self, request, session)

        return handle

    async def _file(self, request: Request) -> Response:
        data, kind = self._files[request.url.path]
        return Response(data, media_type=kind)

    async def _page(self, _request: Request) -> Response:
        config = self.model.config
        return JSONResponse(
            {
                "model": self._name,
                "steps": config.steps,
                "guidance": config.guidance,
                "fill": config.fill,
                "size": config.image_size,
                "colours": COLOURS,
                "examples": sorted(self._examples),
                "max_objects": MAX_OBJECTS,
                "max_upload": MAX_UPLOAD,
            }
        )

    async def _example(self, request: Request) -> Response:
        folder = self._examples.get(request.path_params["name"])
        if folder is None:
            raise NotThere("error: no such example")
        return FileResponse(folder / "image.jpg")

    async def _new_session(self, _request: Request) -> Response:
        name, _ = self.sessions.new()
        return JSONResponse({"session": name})

    async def change(self, session: Session, work: Callable[[], Any], decodes: bool = True) -> Response:
        """Do something to a session, and answer with what it is then; `decodes`: a picture, which may be large."""

        def locked() -> dict[str, Any]:
            with session.lock:
                work()
                return self.state(session)

        async with self._decoding if decodes else contextlib.nullcontext():
            return JSONResponse(await run_in_threadpool(locked))

    def state(self, session: Session) -> dict[str, Any]:
        """A session as the page reads it."""
        return session.to_json({job.number: self.queue.ahead(job) for job in session.jobs})


async def _state(server: Server, _request: Request, session: Session) -> Response:
    return await server.change(session, lambda: None, decodes=False)


async def _set_background(server: Server, request: Request, session: Session) -> Response:
    data, label = await read_upload(request)
    return await server.change(session, lambda: session.set_background(data, label))


async def _background(_server: Server, _request: Request, session: Session) -> Response:
    return picture_response(session.shown_background)


async def _set_kept(server: Server, request: Request, session: Session) -> Response:
    data, _ = await read_upload(request)
    return await server.change(session, lambda: session.set_kept(data))


async def _remove_kept(server: Server, _request: Request, session: Session) -> Response:
    return await server.change(session, lambda: session.set_kept(None), decodes=False)


async def _kept(_server: Server, _request: Request, session: Session) -> Response:
    return picture_response(session.folder / "keep_strokes.png" if session.kept else None)


async def _add_object(server: Server, request: Request, session: Session) -> Response:
    data, label = await read_upload(request)
    return await server.change(session, lambda: session.add_object(data, label, server.model))


async def _remove_object(server: Server, request: Request, session: Session) -> Response:
    return await server.change(session, lambda: session.remove_object(request.path_params["number"]), False)


async def _set_strokes(server: Server, request: Request, session: Session) -> Response:
    data, _ = await read_upload(request)
    number = request.path_params["number"]
    return await server.change(session, lambda: session.set_strokes(number, data, server.model))


async def _remove_strokes(server: Server, request: Request, session: Session) -> Response:
    number = request.path_params["number"]
    return await server.change(session, lambda: session.set_strokes(number, None, server.model))


async def _object_picture(_server: Server, request: Request, session: Session) -> Response:
    target = session.object(request.path_params["number"])
    what = request.path_params["what"]
    if what == "picture":
        return Response(await run_in_threadpool(session.shown_object, target), media_type="image/png")
    if what not in ("cut", "strokes") or (what == "strokes" and not target.corrected):
        raise NotThere("error: no such picture")
    return picture_response(session.folder / target.name(what))


async def _draw(server: Server, request: Request, session: Session) -> Response:
    drawing = await read_drawing(request)
    return await server.change(session, lambda: session.draw(drawing, server.model), decodes=False)


async def _load_example(server: Server, request: Request, session: Session) -> Response:
    folder = server._examples.get(request.path_params["name"])
    if folder is None:
        raise NotThere("error: no such example")
    return await server.change(session, lambda: session.load_example(folder, server.model))


async def _composite(server: Server, request: Request, session: Session) -> Response:
    drawing = await read_drawing(request)

    def start() -> None:
        session.draw(drawing, server.model)
        server.queue.submit(session.new_job(server.model))

    return await server.change(session, start, decodes=False)


async def _job(server: Server, _request: Request, session: Session) -> Response:
    """Once the job is over or a moment has passed: a page that asks again and again would slow the model down."""
    if session.jobs:
        await run_in_threadpool(server.queue.wait, session.jobs[-1], _MOMENT)
    return _job_state(server, session)


async def _cancel(server: Server, _request: Request, session: Session) -> Response:
    if session.jobs:
        server.queue.cancel(session.jobs[-1])
    return _job_state(server, session)


def _job_state(server: Server, session: Session) -> Response:
    if not session.jobs:
        raise NotThere("error: nothing was composited yet")
    job = session.jobs[-1]
    return JSONResponse(job_json(job, server.queue.ahead(job)))


async def _result(_server: Server, request: Request, session: Session) -> Response:
    job = _finished(request, session)
    return picture_response(composed_path(job.job.output, job.sample.id, request.path_params["candidate"]))


async def _explained(_server: Server, request: Request, session: Session) -> Response:
    what = request.path_params["what"]
    if what not in EXPLANATIONS:
        raise NotThere("error: no such map")
    return picture_response(explained_file(_finished(request, session), what))


async def _sample_zip(_server: Server, request: Request, session: Session) -> Response:
    job = _finished(request, session)
    return Response(await run_in_threadpool(sample_zip, job), media_type="application/zip")


async def _layers_zip(_server: Server, request: Request, session: Session) -> Response:
    folder = _finished(request, session).job.output / "layers"
    if not folder.is_dir():
        raise NotThere("error: no layers")
    return Response(await run_in_threadpool(folder_zip, folder), media_type="application/zip")


_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "", _state),
    ("PUT", "/background", _set_background),
    ("GET", "/background", _background),
    ("PUT", "/kept", _set_kept),
    ("GET", "/kept", _kept),
    ("DELETE", "/kept", _remove_kept),
    ("POST", "/objects", _add_object),
    ("DELETE", "/objects/{number:int}", _remove_object),
    ("GET", "/objects/{number:int}/{what}", _object_picture),
    ("PUT", "/objects/{number:int}/strokes", _set_strokes),
    ("DELETE", "/objects/{number:int}/strokes", _remove_strokes),
    ("PUT", "/drawing", _draw),
    ("POST", "/examples/{name}", _load_example),
    ("POST", "/composite", _composite),
    ("GET", "/job", _job),
    ("DELETE", "/job", _cancel),
    ("GET", "/jobs/{job:int}/results/{candidate:int}", _result),
    ("GET", "/jobs/{job:int}/explained/{what}", _explained),
    ("GET", "/jobs/{job:int}/sample.zip", _sample_zip),
    ("GET", "/jobs/{job:int}/layers.zip", _layers_zip),
]


def _examples() -> list[Path]:
    return [path for path in BUNDLED_SAMPLES.iterdir() if path.is_dir()] if BUNDLED_SAMPLES.is_dir() else []


def _finished(request: Request, session: Session) -> Job:
    number = request.path_params["job"]
    for job in session.jobs:
        if job.number == number and job.state == "done":
            return job
    raise NotThere("error: this result is not kept any more")


async def _bad_request(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": error_text(error)}, 400)


async def _nobody_there(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # of an upload that was broken off: nobody reads it


async def _not_there(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404)
