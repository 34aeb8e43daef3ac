"""The page's server: routes that hand JSON to the workbench, and the page's own files."""

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from core.errors import InputError, shortened
from reporting.pages import TEMPLATES

from .blinding import Blinding
from .guard import Guard, Refused, error_response, internal_error
from .workbench import Workbench

PAGE = Path(__file__).resolve().parent / "page"
LONGEST_NAME = 255  # characters of an uploaded file's name
UPLOADS_AT_ONCE = 2  # that are read into memory
TYPES = {".js": "text/javascript", ".svg": "image/svg+xml"}  # whatever the system says


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Asked(_Body):
    """A run and the symptoms that it shall read: the trained ones, or the page's state."""

    run: str
    symptoms: Any = None


class AskedImage(Asked):
    image: str


class AskedMap(AskedImage):
    class_name: str
    phrase: str


class ToSave(Asked):
    name: str


class ToRead(_Body):
    run: str
    text: str


class AskedClass(_Body):
    run: str
    class_name: str


class Consent(AskedClass):
    consent: str


class Note(_Body):
    image: str
    label: str
    remark: str
    reader: str


def page_server(
    workbench: Workbench,
    token: str,
    hosts: Collection[str] = ("localhost",),
    loopback: bool = True,
    blind: bool = False,
) -> Guard:
    """The ASGI application of one page.

    Args:
        workbench: what answers; its calls come one at a time.
        token, hosts, loopback: as in ``Guard``.
        blind: whether the model's answers are hidden until the reader has labelled the image.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for kind in (InputError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _explain)
    app.include_router(_files())
    app.include_router(_routes(workbench, Blinding(workbench, blind)), prefix="/api")
    upload_bytes = workbench.about()["limits"]["upload_bytes"]
    return Guard(app, token, hosts, loopback, upload_bytes)


async def _explain(request: Request, error: Exception) -> Response:
    """What is wrong with a request, as one line of JSON."""
    if isinstance(error, HTTPException):
        return error_response(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"][1:])
        return error_response(400, shortened(f"{where}: {fault['msg']}" if where else fault["msg"]))
    if isinstance(error, InputError):
        return error_response(400, str(error))
    return internal_error(error)  # which the guard reports


def _files() -> APIRouter:
    """The page and what it loads; a file that is not listed here cannot be asked for."""
    files = {path.name: path for path in PAGE.iterdir() if path.is_file()}
    files["report.css"] = TEMPLATES / "style.css"
    router = APIRouter()

    def add(address: str, path: Path) -> None:
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"

        async def send() -> Response:
            return Response(path.read_bytes(), media_type=kind)

        router.add_api_route(address, send, response_model=None)

    add("/", files.pop("index.html"))
    for name, path in files.items():
        add(f"/static/{name}", path)
    return router


class _Turns:
    """Calls of the workbench one at a time; images for lists wait for everything else."""

    def __init__(self) -> None:
        self._model, self._images = asyncio.Lock(), asyncio.Lock()
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """While an upload is read into memory."""
        async with self._uploads:
            yield

    async def call(self, request: Request, function: Callable[[], Any]) -> Any:
        """The function's result; not called if the page no longer waits for it."""
        async with self._model:
            if await request.is_disconnected():
                raise Refused(499, "the page no longer waits for this answer")
            return await run_in_threadpool(function)

    async def image(self, request: Request, function: Callable[[], bytes]) -> bytes:
        async with self._images:
            return await self.call(request, function)


def _routes(workbench: Workbench, blinding: Blinding) -> APIRouter:
    router, turns = APIRouter(), _Turns()
    _add_images(router, turns, workbench, blinding)
    _add_answers(router, turns, workbench, blinding)
    _add_symptoms(router, turns, workbench)
    _add_notes(router, turns, workbench, blinding)
    return router


def _add_images(router: APIRouter, turns: _Turns, workbench: Workbench, blinding: Blinding) -> None:
    @router.get("/about")
    async def about(request: Request) -> Response:
        found = await turns.call(request, workbench.about)
        return _json(found | {"blind": blinding.on})

    @router.get("/images")
    async def images(
        request: Request,
        run: str,
        split: str,
        outcome: str = "all",
        class_name: str | None = None,
        patient: str | None = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 60,
    ) -> Response:
        def find() -> Any:
            filters = {"outcome": outcome, "class_name": class_name, "patient": patient}
            return blinding.images(run, split, offset, limit, **filters)

        return _json(await turns.call(request, find))

    @router.get("/thumbnail")
    async def thumbnail(
        request: Request, image: str, size: Annotated[int, Query(ge=16, le=2048)] = 256
    ) -> Response:
        return _png(await turns.image(request, lambda: workbench.thumbnail(image, size)))

    @router.post("/upload")
    async def upload(
        request: Request, name: Annotated[str, Query(max_length=LONGEST_NAME)]
    ) -> Response:
        async with turns.upload():
            data = await request.body()
            return _json(await turns.call(request, lambda: workbench.upload(name, data)))


def _add_answers(
    router: APIRouter, turns: _Turns, workbench: Workbench, blinding: Blinding
) -> None:
    @router.post("/answer")
    async def answer(request: Request, body: AskedImage) -> Response:
        def find() -> Any:
            blinding.check(body.image)
            return workbench.answer(body.run, body.image, body.symptoms)

        return _json(await turns.call(request, find))

    @router.post("/heatmap")
    async def heatmap(request: Request, body: AskedMap) -> Response:
        def draw() -> bytes:
            blinding.check(body.image)
            return workbench.heatmap(
                body.run, body.image, body.class_name, body.phrase, body.symptoms
            )

        return _png(await turns.call(request, draw))

    @router.get("/neighbours")
    async def neighbours(
        request: Request, run: str, image: str, k: Annotated[int, Query(ge=1, le=50)] = 6
    ) -> Response:
        return _json(await turns.call(request, lambda: blinding.neighbours(run, image, k)))


def _add_symptoms(router: APIRouter, turns: _Turns, workbench: Workbench) -> None:
    @router.post("/check")
    async def check(request: Request, body: Asked) -> Response:
        return _json(await turns.call(request, lambda: workbench.check(body.run, body.symptoms)))

    @router.post("/save")
    async def save(request: Request, body: ToSave) -> Response:
        return _json(
            await turns.call(request, lambda: workbench.save(body.run, body.symptoms, body.name))
        )

    @router.post("/symptom-file")
    async def symptom_file(request: Request, body: Asked) -> Response:
        def make() -> dict[str, str]:
            return {"text": workbench.symptom_file(body.run, body.symptoms)}

        return _json(await turns.call(request, make))

    @router.post("/read-symptom-file")
    async def read_symptom_file(request: Request, body: ToRead) -> Response:
        def read() -> dict[str, Any]:
            return {"symptoms": workbench.read_symptom_file(body.run, body.text)}

        return _json(await turns.call(request, read))

    @router.post("/suggestion-request")
    async def suggestion_request(request: Request, body: AskedClass) -> Response:
        def make() -> Any:
            return workbench.suggestion_request(body.run, body.class_name)

        return _json(await turns.call(request, make))

    @router.post("/suggest")
    async def suggest(body: Consent) -> Response:
        # Without its turn: an endpoint may take a minute, and no model of this computer is asked.
        def ask() -> dict[str, Any]:
            return {"phrases": workbench.suggest(body.run, body.class_name, body.consent)}

        return _json(await run_in_threadpool(ask))


def _add_notes(router: APIRouter, turns: _Turns, workbench: Workbench, blinding: Blinding) -> None:
    @router.post("/note")
    async def note(request: Request, body: Note) -> Response:
        def keep() -> Any:
            blinding.check_label(body.image, body.label)
            kept = workbench.note(body.image, body.label, body.remark, body.reader)
            blinding.keep(body.image, body.label)
            return kept

        return _json(await turns.call(request, keep))

    @router.get("/notes")
    async def notes(request: Request) -> Response:
        found = await turns.call(request, workbench.notes)
        return _json([own for own in found if not blinding.hides(own["image"])])

    @router.get("/agreement")
    async def agreement(request: Request, run: str) -> Response:
        return _json(await turns.call(request, lambda: workbench.agreement(run, blinding.hides)))


def _json(value: Any) -> Response:
    """As JSON in ASCII: a name may hold what cannot be encoded otherwise."""
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png")
