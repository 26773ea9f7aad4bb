-- The words that wake devices, in their order; none means those that are built in.
CREATE TABLE wake_word (
    place INTEGER NOT NULL PRIMARY KEY,
    word TEXT NOT NULL
) STRICT;

-- What a request that may come again was answered. The id is a SHA-256 of who asked, for what and
-- under which key; `request` one of the parameters. Without an answer it was begun in the process
-- `boot`, and what came of it is not known.
CREATE TABLE answer (
    id BLOB NOT NULL PRIMARY KEY,
    request BLOB NOT NULL,
    boot TEXT NOT NULL,
    at INTEGER NOT NULL,
    is_error INTEGER,
    text TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX answer_by_age ON answer (at);
