-- Which devices have proved to have read the answer to their setup code. Before, none was asked.
CREATE TABLE setup_delivery (
    setup_id TEXT NOT NULL PRIMARY KEY REFERENCES setup_code (id) ON DELETE CASCADE,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO setup_delivery (setup_id, at)
SELECT id, redeemed_at FROM setup_code WHERE redeemed_at IS NOT NULL;
