ALTER TABLE domains ADD COLUMN ari_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin;

ALTER TABLE domains ADD COLUMN ari_at BIGINT;

ALTER TABLE domains ADD COLUMN began_at BIGINT;

ALTER TABLE domains ADD COLUMN ends_at BIGINT;

ALTER TABLE domains ADD COLUMN urgent_at BIGINT;

UPDATE domains SET began_at = JSON_EXTRACT(certificate, '$.not_before'), ends_at = JSON_EXTRACT(certificate, '$.not_after')
    WHERE certificate IS NOT NULL;

UPDATE domains SET urgent_at = ends_at - (ends_at - renew_at) DIV 2 WHERE ends_at IS NOT NULL;

CREATE INDEX domains_by_window ON domains (ari_at);

CREATE INDEX domains_by_urgency ON domains (urgent_at);

CREATE INDEX domains_by_end ON domains (ends_at, name);

CREATE INDEX domains_by_state ON domains (state, name);

DROP INDEX domains_by_renewal ON domains;

CREATE INDEX domains_by_issuer ON domains (issuer, renew_at, began_at, ends_at);

CREATE TABLE IF NOT EXISTS turns (
    name     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    taken_at BIGINT      NOT NULL
) ENGINE = InnoDB
