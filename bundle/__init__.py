"""What build_zipapp.py is made of, from the outside in.

archives.py   which files of ours and of others go into which archive
wheels.py     requirements/wheels.lock: fetching what it allows, and writing it
papers.py     licences, software bill of materials, checksums
members.py    the zip format
mcpb.py       the desktop bundle and the registry's server.json, both around a finished archive
"""
