"""One file per domain: TABLES, handlers, fields and ROUTES, in reading order. `vault.schema` lists them all."""
