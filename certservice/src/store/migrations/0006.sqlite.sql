ALTER TABLE domains ADD COLUMN ari_id TEXT;

ALTER TABLE domains ADD COLUMN ari_at INTEGER;

ALTER TABLE domains ADD COLUMN began_at INTEGER;

ALTER TABLE domains ADD COLUMN ends_at INTEGER;

ALTER TABLE domains ADD COLUMN urgent_at INTEGER;

UPDATE domains SET began_at = JSON_EXTRACT(certificate, '$.not_before'), ends_at = JSON_EXTRACT(certificate, '$.not_after')
    WHERE certificate IS NOT NULL;

UPDATE domains SET urgent_at = ends_at - (ends_at - renew_at) / 2 WHERE ends_at IS NOT NULL;

CREATE INDEX domains_by_window ON domains (ari_at);

CREATE INDEX domains_by_urgency ON domains (urgent_at);

CREATE INDEX domains_by_end ON domains (ends_at, name);

CREATE INDEX domains_by_state ON domains (state, name);

DROP INDEX domains_by_renewal;

CREATE INDEX domains_by_issuer ON domains (issuer, renew_at, began_at, ends_at);

CREATE TABLE turns (
    name     TEXT    NOT NULL PRIMARY KEY,
    taken_at INTEGER NOT NULL
) STRICT
