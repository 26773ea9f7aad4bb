-- Requests for approval of a program, with what was decided and whether it was used. `request` is
-- what was shown, and holds what may run; `environment` is a SHA-256. Whoever asked without a device
-- is known by the connection.
CREATE TABLE approval (
    id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT,
    device_id TEXT,
    connection TEXT NOT NULL,
    request TEXT NOT NULL,
    environment BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decision TEXT,
    decided_at INTEGER,
    used_at INTEGER
) STRICT;
