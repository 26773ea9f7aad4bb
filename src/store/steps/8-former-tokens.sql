-- Tokens that gave way to one that holds more, good until their device shows a later one; `place`
-- counts up from the oldest.
CREATE TABLE device_former_token (
    device_id TEXT NOT NULL,
    role TEXT NOT NULL,
    place INTEGER NOT NULL,
    scopes TEXT NOT NULL,
    token_digest BLOB NOT NULL,
    PRIMARY KEY (device_id, role, place),
    FOREIGN KEY (device_id, role) REFERENCES device_grant (device_id, role) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
