"""The owner's dashboard: pages that the vault serves under /dashboard, for a browser on the owner's computer.

web.py          requests, sessions and headers; what a page's function gets and returns
sessions.py     one-time links and sessions, in memory
templating.py   Jinja2 and its filters
pages/          one module for each part of the dashboard; each lists its pages as rows
queries/        what pages ask the database and no route of the API answers
templates/      HTML: base.html is around every page, parts.html has what pages share
static/         the style sheet, the script for live updates, the icon
"""
