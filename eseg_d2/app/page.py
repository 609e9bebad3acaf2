"""The page: one custom component of Gradio, and the server behind it."""

import json
import socket
import sys
from importlib.resources import files
from pathlib import Path

from eseg_d2.app.safety import Guard, Limits, is_loopback
from eseg_d2.app.service import Service

__all__ = ["build_page", "serve"]

_EVENTS = ("predict", "context", "download")
_FONTS = ("system-ui", "sans-serif")


def build_page(service: Service):
    """The interface, a ``gradio.Blocks``.

    The page and the server speak through one component: the script triggers an event, and the
    component's value becomes the answer. Nothing is served as a file.

    Raises:
        ValueError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as e:
        raise ValueError("the page needs gradio: pip install -e '.[app]'") from e
    folder = files("eseg_d2.app")
    with gr.Blocks(title="eseg_d2", analytics_enabled=False) as page:
        viewer = gr.HTML(
            json.dumps(service.start()),
            html_template=folder.joinpath("viewer.html").read_text(),
            js_on_load=folder.joinpath("viewer.js").read_text(),
            apply_default_css=False,
            elem_id="viewer",
        )
        for name in _EVENTS:
            getattr(viewer, name)(
                _listener(service, name, gr.EventData),
                inputs=None,
                outputs=viewer,
                api_visibility="private",
                show_progress="hidden",
                trigger_mode="multiple",
                concurrency_limit=1,
                concurrency_id="model",
            )
    page.queue(max_size=service.limits.waiting, api_open=False)
    return page


def _listener(service: Service, name: str, event_data: type):
    def listen(event):
        request = event._data if isinstance(event._data, dict) else {}
        return json.dumps(service.answer(name, request))

    listen.__annotations__ = {"event": event_data}  # tells Gradio to pass it
    return listen


def serve(page, *, folder: Path, limits: Limits, host: str, port: int | None, block: bool = True):
    """Start the server.

    Args:
        page: of :func:`build_page`.
        folder: Gradio's temporary files, of :func:`eseg_d2.app.safety.private_folder`.
        limits: of uploads.
        host: to listen on; another than loopback lets others in, and a warning says so.
        port: None takes a free one from 7860 on.
        block: until Ctrl-C; else return.

    Returns:
        The page's address.

    Raises:
        OSError: the port is taken, or the host is not one of this machine's.
    """
    import gradio as gr

    if not is_loopback(host):
        print(
            f"Warning: listening on {host}: everybody who reaches this machine can use the page. "
            "It has no password and no encryption; put a server with both in front of it.",
            file=sys.stderr,
        )
    if port is not None:
        _check_port(host, port)
    style = files("eseg_d2.app").joinpath("viewer.css").read_text()
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        allowed_paths=[],
        blocked_paths=["/"],
        max_file_size=limits.max_upload,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        state_session_capacity=64,
        theme=gr.themes.Default(font=_FONTS, font_mono=("monospace",)),
        css=style,
        # (class, arguments, keywords) is what Starlette's Middleware unpacks to
        app_kwargs={
            "middleware": [(Guard, (), {"folder": folder, "limits": limits, "host": host})]
        },
    )
    print(f"The page is at {address} (Ctrl-C ends it)", flush=True)
    if block:
        page.block_thread()
    return address


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as e:
        reason = getattr(e, "strerror", None) or e
        raise OSError(f"cannot listen on {host}, port {port}: {reason}. Choose another.") from e
