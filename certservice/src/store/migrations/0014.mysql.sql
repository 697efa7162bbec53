ALTER TABLE domains
    MODIFY COLUMN issuers     TEXT        CHARACTER SET utf8mb4,
    MODIFY COLUMN passed_over TEXT        CHARACTER SET utf8mb4,
    MODIFY COLUMN profile     VARCHAR(64) CHARACTER SET utf8mb4;

ALTER TABLE domains ADD COLUMN window_start BIGINT;

ALTER TABLE domains ADD COLUMN window_end BIGINT
