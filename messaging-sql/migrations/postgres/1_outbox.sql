-- Events that wait to be published. They are written by the transaction that makes the change which they tell of.
CREATE TABLE messaging_outbox (
    seq           BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    -- Rows of one ordering are published in the order of seq.
    ordering      TEXT    NOT NULL,
    event         TEXT    NOT NULL,
    created_ms    BIGINT  NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT,
    -- Nobody takes the row before: it is claimed, or has failed and waits.
    free_ms       BIGINT  NOT NULL DEFAULT 0,
    claimed_by    TEXT,
    attempts      BIGINT  NOT NULL DEFAULT 0,
    error         TEXT,
    published_ms  BIGINT
);
CREATE INDEX messaging_outbox_waiting ON messaging_outbox (seq) WHERE published_ms IS NULL;
CREATE INDEX messaging_outbox_taken ON messaging_outbox (ordering, seq) WHERE published_ms IS NULL AND free_ms > 0;
CREATE INDEX messaging_outbox_published ON messaging_outbox (published_ms) WHERE published_ms IS NOT NULL;

-- Claims rows for a relay. One relay claims at a time, each with a snapshot from after the claim before: with SKIP LOCKED
-- alone, one that skips the first row of an ordering, which another is just claiming, would take the second.
CREATE FUNCTION messaging_outbox_claim(claimant TEXT, lease_ms BIGINT, most BIGINT)
RETURNS TABLE (seq BIGINT, ordering TEXT, event TEXT, attempts BIGINT)
LANGUAGE plpgsql
-- What is in the table changes faster than what is known of it: without these, the whole backlog may be read and sorted for each
-- claim.
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    now_ms BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('messaging_outbox'), 'messaging_outbox'::regclass::oid::integer);
    now_ms := (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT;
    RETURN QUERY
    UPDATE messaging_outbox
    SET claimed_by = claimant, free_ms = now_ms + lease_ms
    WHERE seq IN (
        SELECT waiting.seq FROM messaging_outbox AS waiting
        WHERE waiting.published_ms IS NULL AND waiting.free_ms <= now_ms
          AND NOT EXISTS (
            SELECT 1 FROM messaging_outbox AS earlier
            WHERE earlier.published_ms IS NULL AND earlier.free_ms > 0 AND earlier.free_ms > now_ms
              AND earlier.ordering = waiting.ordering AND earlier.seq < waiting.seq
          )
        ORDER BY waiting.seq
        LIMIT most
        FOR UPDATE SKIP LOCKED
    )
    RETURNING messaging_outbox.seq, messaging_outbox.ordering, messaging_outbox.event, messaging_outbox.attempts;
END
$$;

-- Wakes relays, whoever writes a row.
CREATE FUNCTION messaging_outbox_notify() RETURNS TRIGGER
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('messaging_outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER messaging_outbox_notify AFTER INSERT ON messaging_outbox
FOR EACH STATEMENT EXECUTE FUNCTION messaging_outbox_notify();
