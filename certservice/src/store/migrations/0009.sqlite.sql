CREATE TABLE webhooks (
    name       TEXT    NOT NULL PRIMARY KEY,
    seq        INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    says       TEXT    NOT NULL,
    holder     TEXT    NOT NULL,
    held_until INTEGER NOT NULL
) STRICT
