-- Work that was left for a node, until it has it or the work is old.
CREATE TABLE node_work (
    id TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- News that wait for the next turn of a chat session, in their order.
CREATE TABLE news (
    number INTEGER NOT NULL PRIMARY KEY,
    session TEXT NOT NULL,
    about TEXT,
    text TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
