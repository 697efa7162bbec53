ALTER TABLE domains ADD COLUMN profile TEXT;

ALTER TABLE domains ADD COLUMN warn_at INTEGER;

CREATE INDEX domains_by_warning ON domains (warn_at)
