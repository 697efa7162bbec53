CREATE TABLE ticket_keys (
    id       INTEGER NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    body     TEXT    NOT NULL
) STRICT;

INSERT INTO ticket_keys (id, revision, body) VALUES (1, 0, '')
