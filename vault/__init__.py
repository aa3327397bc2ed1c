"""A local SikkerKey vault for tests and trials of the MCP server.

It verifies every signature, stores its data in one SQLite file and encrypts each value under its own key. The vault
and the MCP server share no code: each implements the contract separately, so one mistake cannot hide on both sides.
Programs use `vault.app.create_app`, people use `python -m vault`.

    vault/              the core: server, routing, storage, encryption, audit log
    vault/domains/      one file per domain: its tables, handlers and routes
    vault/dashboard/    the owner's pages
    vault/owner/        the owner's command line
"""

VERSION = "0.1.0"  # that of the server, with which it is released
