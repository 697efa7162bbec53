CREATE TABLE IF NOT EXISTS journal (
    seq        BIGINT       NOT NULL PRIMARY KEY,
    written_at BIGINT       NOT NULL,
    actor      VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    action     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    tenant     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name       VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    detail     MEDIUMTEXT   CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    hash       CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    INDEX journal_by_tenant (tenant, seq)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS journal_head (
    id   INT      NOT NULL PRIMARY KEY,
    seq  BIGINT   NOT NULL,
    hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO journal_head (id, seq, hash) VALUES (1, 0, '');

ALTER TABLE lists ADD COLUMN actor VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;

UPDATE jobs SET created_at = JSON_EXTRACT(body, '$.created_at');

CREATE INDEX jobs_by_age ON jobs (lane, created_at)
