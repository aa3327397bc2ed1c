"""Says why the program cannot run: on stderr, and as an MCP server to a client, which shows nobody stderr.

Python 2.7 and 3.6 must be able to run this file.
"""

import json
import sys

LINE_MAX_BYTES = 4 * 1024 * 1024
METHOD_NOT_FOUND = -32601


def refuse(program, sentence):
    # type: (str, str) -> None
    """Says `sentence` and exits with status 1; before that, a client of the server is answered until its input ends."""
    serves = program == "sikkerkey-mcp" and sys.argv[1:2] in ([], ["serve"])
    if serves and sys.stdin is not None and not sys.stdin.isatty():
        if sys.stderr is not None:
            sys.stderr.write(sentence + "\n")
            sys.stderr.flush()
        answer_client(sentence)
        sys.exit(1)
    sys.exit(sentence)


def answer_client(sentence):
    # type: (str) -> None
    """Answers each request on stdin with the sentence. The only tool is whoami, which returns it."""
    lines = getattr(sys.stdin, "buffer", sys.stdin)
    output = getattr(sys.stdout, "buffer", sys.stdout)
    while True:
        line = lines.readline(LINE_MAX_BYTES)
        if not line:
            return
        try:
            message = json.loads(line.decode("utf-8"))  # type: ignore[union-attr]  # bytes in Python 3, str in 2.7
        except ValueError:  # also UnicodeDecodeError
            continue
        if isinstance(message, dict) and "method" in message and "id" in message:
            reply = {"jsonrpc": "2.0", "id": message["id"]}
            reply.update(reply_to(message["method"], message.get("params"), sentence))
            output.write(json.dumps(reply).encode("ascii") + b"\n")  # type: ignore[arg-type]
            output.flush()


def reply_to(method, params, sentence):
    # type: (object, object, str) -> dict[str, object]
    """The result or the error of one request."""
    if method == "initialize":
        wanted = params.get("protocolVersion") if isinstance(params, dict) else None
        result = {
            "protocolVersion": wanted or "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "sikkerkey-mcp", "title": "SikkerKey", "version": "0"},
            "instructions": "No SikkerKey tool works at present: " + sentence,
        }  # type: dict[str, object]
    elif method == "tools/list":
        text = "Says why this server does not work."
        result = {"tools": [{"name": "whoami", "description": text, "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": sentence}], "isError": True}
    elif method == "ping":
        result = {}
    else:
        return {"error": {"code": METHOD_NOT_FOUND, "message": sentence}}
    return {"result": result}


def unsupported(program, platform, supported):
    # type: (str, str, list[str]) -> str
    """One sentence for a platform that the archive does not support."""
    advice = "use the archive for this platform, or another machine"
    if platform == "windows-arm64" and "windows-amd64" in supported:
        advice = "start it with an amd64 Python, which also runs on this machine"
    reason = "this Python is for %s, but the archive is for %s" % (platform, ", ".join(supported))
    return "%s: error: %s: %s" % (program, reason, advice)
