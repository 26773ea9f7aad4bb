-- The rules by which programs may run on the gateway's own host, as one text; no row means that
-- nobody gave any.
CREATE TABLE host_rules (
    place INTEGER NOT NULL PRIMARY KEY CHECK (place = 1),
    text TEXT NOT NULL
) STRICT;
