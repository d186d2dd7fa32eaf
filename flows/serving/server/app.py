"""The server's addresses."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from . import mlflow_form, open_inference
from .docs import ANY_IMAGE, INFERENCE, INVOCATION, PREDICTION, add_pages
from .explain import Explainer
from .images import document_of, images_of, several
from .refusal import Refusal
from .replies import all_answered, model_of, refused, reply, reply_to_many, reply_to_one
from .runner import Runner
from .service import Service, aside

GRAFT = version("graft")


def build(service: Service) -> FastAPI:
    app = FastAPI(title="Graft", version=GRAFT, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, _refused(service))
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(ClientDisconnect, _left)
    add_pages(app, service)
    _add_health(app, service)
    _add_predict(app, service)
    _add_v2(app, service)
    _add_mlflow(app, service)
    return app


def _refused(service: Service) -> Any:
    async def handler(_request: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        service.metrics.refuse(refusal)
        return refused(refusal)

    return handler


async def _not_found(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "there is nothing at this address", 405: "this address takes another method"}
    reason = reasons.get(error.status_code, "the request is not understood")
    return refused(Refusal(error.status_code, reason, "address"))


async def _left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", tags=["health"], summary="Whether the process runs")
    @app.get("/live", tags=["health"], include_in_schema=False)
    async def live() -> Response:
        return reply({"live": True})

    @app.get("/v2/health/ready", tags=["health"], summary="Whether a model is loaded and the server takes requests")
    @app.get("/ready", tags=["health"], include_in_schema=False)
    @app.get("/health", tags=["health"], include_in_schema=False)
    @app.get("/ping", tags=["health"], include_in_schema=False)
    async def ready() -> Response:
        return reply({"ready": service.desk.ready}, 200 if service.desk.ready else 503)

    @app.get("/version", tags=["health"], summary="Of Graft and of the model")
    async def versions() -> Response:
        runner = service.desk.current
        model = {**model_of(runner), "task": runner.classifier.task} if runner else None
        return reply({"graft": GRAFT, "model": model})

    @app.get("/metrics", tags=["health"], summary="For Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4")


def _add_predict(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/predict", tags=["predict"], summary="Answers to one image or several", openapi_extra=PREDICTION)
    async def predict(request: Request) -> Response:
        async with service.body(request) as body:
            kind = request.headers.get("content-type", "")
            images, one = await aside(len(body), images_of, body, kind, settings.max_bytes, settings.max_images)
            runner, outcomes = await service.ask(images, with_maps=_wants_map(request.query_params.get("map")))
        return reply_to_one(outcomes[0], runner) if one else reply_to_many(outcomes, runner)

    explainer = Explainer(settings.timeout)

    @app.post("/saliency", tags=["predict"], summary="A PNG of what decided the answer", openapi_extra=ANY_IMAGE)
    async def saliency(request: Request) -> Response:
        async with service.body(request) as body:
            kind = request.headers.get("content-type", "")
            images, _ = await aside(len(body), images_of, body, kind, settings.max_bytes, 1)
            (image,) = images or [Refusal(400, "is not there", "malformed")]
            if isinstance(image, Refusal):
                return refused(image.of("this"))
            overlay = await explainer.overlay(await service.loaded(), image)
        return Response(overlay, headers={"cache-control": "no-store"}, media_type="image/png")


def _wants_map(value: str | None) -> bool:
    """Raises:
    Refusal: it is neither yes nor no.
    """
    known = {None: False, "false": False, "0": False, "true": True, "1": True}
    if value not in known:
        raise Refusal(400, "`map` must be true or false", "malformed")
    return known[value]


def _add_v2(app: FastAPI, service: Service) -> None:
    tags: list[Any] = ["Open Inference Protocol"]

    @app.get("/v2", tags=tags, summary="The server")
    async def server() -> Response:
        return reply({"name": "graft", "version": GRAFT, "extensions": ["binary_tensor_data"]})

    @app.get("/v2/models/{name}", tags=tags, summary="The model's inputs and outputs")
    @app.get("/v2/models/{name}/versions/{number}", tags=tags, include_in_schema=False)
    async def model(name: str, number: str = "") -> Response:
        return reply(open_inference.metadata(await _known(service, name, number)))

    @app.get("/v2/models/{name}/ready", tags=tags, summary="Whether the model is loaded")
    @app.get("/v2/models/{name}/versions/{number}/ready", tags=tags, include_in_schema=False)
    async def ready(name: str, number: str = "") -> Response:
        await _known(service, name, number)
        return reply({"ready": service.desk.ready}, 200 if service.desk.ready else 503)

    @app.post("/v2/models/{name}/infer", tags=tags, summary="Answers to images", openapi_extra=INFERENCE)
    @app.post("/v2/models/{name}/versions/{number}/infer", tags=tags, include_in_schema=False)
    async def infer(request: Request, name: str, number: str = "") -> Response:
        await _known(service, name, number)
        return await _inferred(service, request)


async def _inferred(service: Service, request: Request) -> Response:
    settings, length = service.settings, request.headers.get("inference-header-content-length")
    async with service.body(request) as body:
        wanted = await aside(len(body), open_inference.read, body, length, settings.max_bytes, settings.max_images)
        runner, outcomes = await service.ask(wanted.images)
    text, json_length = open_inference.written(wanted, runner, all_answered(outcomes))
    if json_length is None:
        return Response(text, media_type="application/json")
    headers = {"inference-header-content-length": str(json_length)}
    return Response(text, headers=headers, media_type="application/octet-stream")


async def _known(service: Service, name: str, number: str) -> Runner:
    """Raises:
    Refusal: another model is served.
    """
    runner = await service.loaded()
    if name != runner.name or number not in ("", runner.version):
        raise Refusal(404, "the server has no such model, or no such version of it", "address")
    return runner


def _add_mlflow(app: FastAPI, service: Service) -> None:
    settings = service.settings

    def read(body: bytes) -> list[bytes | Refusal]:
        return several(mlflow_form.values_of(document_of(body)), settings.max_bytes, settings.max_images)

    @app.post("/invocations", tags=["MLflow"], summary="Answers in MLflow's form", openapi_extra=INVOCATION)
    async def invocations(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "/invocations takes application/json", "content_type")
        async with service.body(request) as body:
            _runner, outcomes = await service.ask(await aside(len(body), read, body))
        return reply({"predictions": all_answered(outcomes)})
