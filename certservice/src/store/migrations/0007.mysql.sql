ALTER TABLE domains ADD COLUMN registered VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '';

ALTER TABLE domains ADD COLUMN list_id VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin;

CREATE INDEX domains_by_registered ON domains (registered);

CREATE INDEX domains_by_list ON domains (list_id, state, code);

CREATE TABLE IF NOT EXISTS lists (
    id         VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    own_tenant VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    idem_key   VARCHAR(140) CHARACTER SET ascii COLLATE ascii_bin UNIQUE,
    format     VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    others     TEXT         CHARACTER SET utf8mb4 NOT NULL,
    created_at BIGINT       NOT NULL,
    arrived    BIGINT       NOT NULL,
    line_count BIGINT       NOT NULL,
    done       BIGINT       NOT NULL,
    registered BIGINT       NOT NULL,
    known      BIGINT       NOT NULL,
    refused    BIGINT       NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS list_parts (
    list_id    VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    first_line BIGINT      NOT NULL,
    body       MEDIUMTEXT  CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (list_id, first_line),
    FOREIGN KEY (list_id) REFERENCES lists (id) ON DELETE CASCADE
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS list_errors (
    list_id VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    line    BIGINT       NOT NULL,
    name    VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    code    VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    says    TEXT         CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (list_id, line, name),
    FOREIGN KEY (list_id) REFERENCES lists (id) ON DELETE CASCADE
) ENGINE = InnoDB
