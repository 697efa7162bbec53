CREATE TABLE IF NOT EXISTS edge_keys (
    kid        VARCHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    pool       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    public_key TEXT        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    added_at   BIGINT      NOT NULL,
    retired_at BIGINT,
    mac        VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS key_sets (
    id   BIGINT NOT NULL PRIMARY KEY,
    kids TEXT   CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;

ALTER TABLE bundles ADD COLUMN key_set BIGINT NOT NULL DEFAULT 0;

CREATE INDEX bundles_by_key_set ON bundles (key_set, domain)
