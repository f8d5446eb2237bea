-- Events that wait to be published. They are written by the transaction that makes the change which they tell of.
CREATE TABLE messaging_outbox (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    -- Rows of one ordering are published in the order of seq.
    ordering      TEXT    NOT NULL,
    event         TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
    -- Nobody takes the row before: it is claimed, or has failed and waits.
    free_ms       INTEGER NOT NULL DEFAULT 0,
    claimed_by    TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    error         TEXT,
    published_ms  INTEGER
);
CREATE INDEX messaging_outbox_waiting ON messaging_outbox (seq) WHERE published_ms IS NULL;
CREATE INDEX messaging_outbox_taken ON messaging_outbox (ordering, seq) WHERE published_ms IS NULL AND free_ms > 0;
CREATE INDEX messaging_outbox_published ON messaging_outbox (published_ms) WHERE published_ms IS NOT NULL;
