CREATE TABLE IF NOT EXISTS domains (
    name          VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    tenant        VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    issuer        VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state         VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    code          VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    says          TEXT         CHARACTER SET utf8mb4 NOT NULL,
    who           VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at    BIGINT       NOT NULL,
    next_check_at BIGINT,
    certificate   TEXT         CHARACTER SET utf8mb4,
    renew_at      BIGINT,
    INDEX domains_by_tenant (tenant, name),
    INDEX domains_by_renewal (renew_at)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS bundles (
    domain VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    body   MEDIUMTEXT   CHARACTER SET utf8mb4 NOT NULL,
    FOREIGN KEY (domain) REFERENCES domains (name) ON DELETE CASCADE
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS jobs (
    domain  VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    version BIGINT       NOT NULL,
    due_at  BIGINT       NOT NULL,
    step    VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body    MEDIUMTEXT   CHARACTER SET utf8mb4 NOT NULL,
    INDEX jobs_by_time (due_at),
    FOREIGN KEY (domain) REFERENCES domains (name) ON DELETE CASCADE
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS challenges (
    domain            VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    token             VARCHAR(256) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    key_authorization VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    expires_at        BIGINT       NOT NULL,
    PRIMARY KEY (domain, token),
    FOREIGN KEY (domain) REFERENCES domains (name) ON DELETE CASCADE
) ENGINE = InnoDB
