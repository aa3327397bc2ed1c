"""A local SikkerKey vault: what the MCP server is tried and tested against.

It checks every signature, keeps its data in one SQLite file and encrypts each value under a key of its own. The MCP
server imports nothing from here, and nothing here imports the MCP server: each rule is written twice, so that one
mistake cannot hide at both ends. `vault.app.create_app` is the way in for programs, `python -m vault` for people.
"""
