"""A page to try a model on, which `demo/app.py` serves; needs starlette and uvicorn."""
