"""What pages ask the database and no route of the API answers. Queries change nothing and never return a value."""
