CREATE TABLE IF NOT EXISTS webhooks (
    name       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    seq        BIGINT      NOT NULL,
    failures   BIGINT      NOT NULL,
    due_at     BIGINT      NOT NULL,
    says       TEXT        CHARACTER SET utf8mb4 NOT NULL,
    holder     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    held_until BIGINT      NOT NULL
) ENGINE = InnoDB
