CREATE TABLE IF NOT EXISTS pair (
    id   INT         NOT NULL PRIMARY KEY,
    pair VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seen BIGINT      NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO pair (id, pair, seen) VALUES (1, '', 0);

CREATE TABLE IF NOT EXISTS key_sets (
    id   BIGINT NOT NULL PRIMARY KEY,
    kids TEXT   CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS bundles (
    domain       VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    revision     BIGINT       NOT NULL,
    certificates VARCHAR(129) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body         MEDIUMTEXT   CHARACTER SET utf8mb4 NOT NULL,
    sealed_to    BIGINT       NOT NULL,
    key_set      BIGINT,
    since        BIGINT       NOT NULL,
    PRIMARY KEY (domain, revision, certificates),
    INDEX bundles_by_key_set (key_set, domain)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS sealed_keys (
    id     CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    domain VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body   MEDIUMTEXT   CHARACTER SET utf8mb4 NOT NULL,
    since  BIGINT       NOT NULL,
    INDEX sealed_keys_by_time (since)
) ENGINE = InnoDB
