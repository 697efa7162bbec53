CREATE TABLE IF NOT EXISTS ticket_keys (
    id       INT        NOT NULL PRIMARY KEY,
    revision BIGINT     NOT NULL,
    body     MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO ticket_keys (id, revision, body) VALUES (1, 0, '')
