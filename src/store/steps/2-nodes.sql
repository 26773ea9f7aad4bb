-- What is known of each node: what it said of itself, what a person approved, what waits for one.
CREATE TABLE node (
    device_id TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;
