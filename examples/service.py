"""A web service: post a photo, get its label.

MODEL=exported/pets uvicorn --app-dir examples --factory service:create_app
curl -F photo=@photo.jpg http://127.0.0.1:8000/predict

It needs `pip install fastapi python-multipart uvicorn`, and no torch. Several requests at once
share one predictor. Put it behind a proxy that limits the size of a request.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, HTTPException, UploadFile

from edgetl import ImageError, Predictor


def create_app(model: str | None = None) -> FastAPI:
    """The service for ``model``, a bundle folder; by default the one that $MODEL names."""
    predictor = Predictor(model or os.environ["MODEL"], max_pixels=25_000_000, threads=1)
    app = FastAPI(title="edgetl")

    @app.post("/predict")
    def predict(photo: UploadFile, top: int | None = None) -> dict[str, Any]:
        """The label of a photo, its confidence, and the probabilities, or the ``top`` best ones."""
        try:
            prediction = predictor(photo.file)
        except ImageError as error:  # the sender's mistake; any other error is a 500
            detail = {"photo": photo.filename, "reason": error.reason, "hint": error.hint}
            raise HTTPException(422, detail) from error
        return {**prediction.to_dict(top), "source": photo.filename}

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Whether this machine answers the bundle's golden photos as the trained network did."""
        found = predictor.selftest()
        if not found.passed:
            raise HTTPException(503, {"passed": False, "stage": found.stage})
        return {"passed": True, "photos": len(found.results)}

    return app
