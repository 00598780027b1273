"""The API's page at /docs, from its OpenAPI description: one HTML text without script."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any


def page(description: Mapping[str, Any]) -> str:
    """description: `FastAPI.openapi()`."""
    info = description["info"]
    parts = [f"<h1>{_text(info['title'])}</h1><p>{_text(info.get('description', ''))}</p>"]
    parts.append('<p>As a file: <a href="/openapi.json">/openapi.json</a></p>')
    for path, calls in description["paths"].items():
        parts += [_call(method, path, call) for method, call in calls.items()]
    parts.append("<h2>Bodies</h2>")
    for name, schema in description.get("components", {}).get("schemas", {}).items():
        shown = json.dumps(schema, indent=2, ensure_ascii=False)
        parts.append(
            f"<details><summary>{_text(name)}</summary><pre>{_text(shown)}</pre></details>"
        )
    head = f'<meta charset="utf-8"><title>{_text(info["title"])}</title>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def _call(method: str, path: str, call: Mapping[str, Any]) -> str:
    content = call.get("requestBody", {}).get("content", {})
    bodies = [
        f"{kind}: {one.get('schema', {}).get('$ref', '').rpartition('/')[2] or 'form'}"
        for kind, one in content.items()
    ]
    takes = f"<p>Takes {_text(', '.join(bodies))}</p>" if bodies else ""
    words = _text(call.get("summary", "")), _text(call.get("description", ""))
    title = f"<h2><code>{method.upper()} {_text(path)}</code> {words[0]}</h2>"
    return f"{title}<p>{words[1]}</p>{takes}"


def _text(words: str) -> str:
    return html.escape(words)
