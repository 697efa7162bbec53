CREATE TABLE IF NOT EXISTS changes (
    `cursor` BIGINT       NOT NULL PRIMARY KEY,
    domain   VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    revision BIGINT       NOT NULL,
    gone     BOOLEAN      NOT NULL
) ENGINE = InnoDB;

DELETE FROM changes;

INSERT INTO changes (`cursor`, domain, revision, gone)
    SELECT ROW_NUMBER() OVER (ORDER BY domain), domain, CAST(JSON_EXTRACT(body, '$.revision') AS SIGNED), FALSE
    FROM bundles;

CREATE TABLE IF NOT EXISTS changes_head (
    id       INT    NOT NULL PRIMARY KEY,
    `cursor` BIGINT NOT NULL
) ENGINE = InnoDB;

DELETE FROM changes_head;

INSERT INTO changes_head (id, `cursor`) SELECT 1, COALESCE(MAX(`cursor`), 0) FROM changes
