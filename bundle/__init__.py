"""The parts of build_zipapp.py, from the top down.

archives.py   which files go into which archive
wheels.py     requirements/wheels.lock: writing it, and fetching the wheels it lists
documents.py  licences, software bill of materials, checksums
members.py    the zip format
mcpb.py       the desktop bundle and the registry's server.json, both made from a finished archive
"""
