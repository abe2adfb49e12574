//! The shape of the file, as steps from one version to the next. A step that was released is never changed: a change is
//! a new step. `PRAGMA user_version` is the number of steps that were taken.

use rusqlite::Connection;

/// Marks the file as flowproof's (`PRAGMA application_id`): "FPRF".
pub(super) const APPLICATION: i64 = 0x4650_5246;

/// Every step ever released.
pub(super) const STEPS: &[&str] = &[VERSION_1];

/// Times are nanoseconds since the Unix epoch, addresses 4 or 16 bytes in network order, outcomes and places the texts
/// of the JSON contracts, vantages those of `Vantage::name`.
const VERSION_1: &str = "
-- One row: how well was watched, and until when (the heartbeat).
CREATE TABLE watch (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    until INTEGER NOT NULL,
    window INTEGER NOT NULL,
    last_packets_lost INTEGER,
    last_names_lost INTEGER,
    last_blind INTEGER,
    packets_lost INTEGER NOT NULL,
    names_lost INTEGER NOT NULL,
    blind INTEGER NOT NULL
);
-- Stretches of time in which silence proves nothing.
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    lost INTEGER NOT NULL
);
CREATE INDEX gaps_by_end ON gaps (ends);
-- Services of the matrix, since they were first seen.
CREATE TABLE services (
    id INTEGER PRIMARY KEY,
    system TEXT NOT NULL,
    requirement TEXT NOT NULL,
    service TEXT NOT NULL,
    first_seen INTEGER,
    last_seen INTEGER,
    begun INTEGER NOT NULL DEFAULT 0,
    answered INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    one_way INTEGER NOT NULL DEFAULT 0,
    last_answer INTEGER,
    failure_time INTEGER,
    failure_outcome TEXT,
    failure_place TEXT,
    failure_told INTEGER,
    failure_evidence TEXT,
    UNIQUE (system, requirement, service)
);
-- What states over a window are told from, so that they outlive the daemon.
CREATE TABLE windows (
    service INTEGER PRIMARY KEY REFERENCES services (id) ON DELETE CASCADE,
    begins INTEGER,
    last_blind INTEGER,
    last_lossy INTEGER,
    counted_begun INTEGER NOT NULL,
    counted_answered INTEGER NOT NULL,
    counted_failed INTEGER NOT NULL,
    counted_one_way INTEGER NOT NULL,
    counted_replies INTEGER NOT NULL,
    last_attempt INTEGER,
    last_answer INTEGER,
    failure_time INTEGER,
    failure_outcome TEXT,
    failure_place TEXT,
    failure_told INTEGER,
    needs_names INTEGER NOT NULL,
    vantage TEXT,
    state TEXT,
    state_since INTEGER
);
CREATE TABLE window_buckets (
    service INTEGER NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    one_way INTEGER NOT NULL,
    PRIMARY KEY (service, starts)
) WITHOUT ROWID;
-- What no requirement covers. `samples`: pairs of addresses, `initiator responder`, one a line.
CREATE TABLE unexpected (
    from_roles TEXT NOT NULL,
    to_roles TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    port INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    flows INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    samples TEXT NOT NULL,
    PRIMARY KEY (from_roles, to_roles, protocol, port)
) WITHOUT ROWID;
CREATE INDEX unexpected_by_time ON unexpected (last_seen);
-- Who talked to whom, by the hour. The hour comes first, so that the oldest lie together and go together.
CREATE TABLE flow_hours (
    hour INTEGER NOT NULL,
    initiator BLOB NOT NULL,
    responder BLOB NOT NULL,
    protocol INTEGER NOT NULL,
    port INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    names TEXT NOT NULL,
    begun INTEGER NOT NULL,
    undecided INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    prohibited INTEGER NOT NULL,
    unreachable INTEGER NOT NULL,
    no_answer INTEGER NOT NULL,
    dropped_here INTEGER NOT NULL,
    one_way INTEGER NOT NULL,
    PRIMARY KEY (hour, initiator, responder, protocol, port, verdict, names)
) WITHOUT ROWID;
";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing in it yet.
    Empty,
    /// A ledger of this schema.
    Ledger(i64),
    /// Something else.
    Foreign,
}

/// What the file behind `connection` is.
pub(super) fn kind(connection: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    Ok(match (application, objects) {
        (APPLICATION, _) => Kind::Ledger(number("PRAGMA user_version")?),
        (0, 0) => Kind::Empty,
        (_, _) => Kind::Foreign,
    })
}

/// Takes the steps that are missing, each in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    loop {
        // Whoever has the lock decides by what is there then.
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let taken = usize::try_from(version).unwrap_or(usize::MAX);
        let Some(step) = steps.get(taken) else {
            return Ok(());
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
}
