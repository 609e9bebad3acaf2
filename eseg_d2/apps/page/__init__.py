"""A page to try a model on: what `demo/app.py` runs. Needs the extra "app" (starlette, uvicorn)."""
