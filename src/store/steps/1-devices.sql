-- Times are milliseconds since 1970; scopes are names with a blank between them; tokens are
-- SHA-256 digests, never the tokens themselves.

CREATE TABLE device (
    id TEXT NOT NULL PRIMARY KEY,
    public_key TEXT NOT NULL,
    about TEXT NOT NULL,
    label TEXT,
    approved_via TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    approved_at INTEGER NOT NULL,
    seen_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE device_grant (
    device_id TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    approved TEXT NOT NULL,
    scopes TEXT NOT NULL,
    serial TEXT NOT NULL,
    token_digest BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    rotated_at INTEGER,
    revoked_at INTEGER,
    used_at INTEGER,
    PRIMARY KEY (device_id, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_request (
    id TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    about TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT NOT NULL,
    is_repair INTEGER NOT NULL,
    at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX device_request_by_device ON device_request (device_id);

CREATE TABLE setup_code (
    id TEXT NOT NULL PRIMARY KEY,
    token_digest BLOB NOT NULL UNIQUE,
    access TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    device_id TEXT,
    redeemed_at INTEGER
) STRICT, WITHOUT ROWID;
