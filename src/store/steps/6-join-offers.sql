-- Setup codes that wait to be fetched, once, by the name in a join URL, of which the digest is kept.
CREATE TABLE join_offer (
    name_digest BLOB NOT NULL PRIMARY KEY,
    setup_id TEXT NOT NULL REFERENCES setup_code (id) ON DELETE CASCADE,
    url TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX join_offer_by_code ON join_offer (setup_id);
