ALTER TABLE domains ADD COLUMN profile VARCHAR(64);

ALTER TABLE domains ADD COLUMN warn_at BIGINT;

CREATE INDEX domains_by_warning ON domains (warn_at)
