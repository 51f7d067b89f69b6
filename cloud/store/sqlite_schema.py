"""The tables of the SQLite store, as migrations: each is a list of statements and is never changed once released.

The file's `user_version` says how many have been applied.
"""

from __future__ import annotations

APPLICATION_ID = 0x484F4C44  # "HOLD": tells our files from other programs' SQLite files

_FIRST = (
    "CREATE TABLE tenants (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE plants (
        id INTEGER PRIMARY KEY,
        tenant_id INTEGER NOT NULL REFERENCES tenants,
        province TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (tenant_id, province, name))""",
    # `gateway`, `last_event_us`, `batches`: of the batches stored, kept up to date in their transactions.
    """CREATE TABLE machines (
        id INTEGER PRIMARY KEY,
        plant_id INTEGER NOT NULL REFERENCES plants,
        name TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved')),
        gateway TEXT NOT NULL DEFAULT '',
        last_event_us INTEGER,
        batches INTEGER NOT NULL DEFAULT 0,
        UNIQUE (plant_id, name))""",
    # What protocols/uplink/presence.py calls Heard; `status` is the status message as JSON.
    """CREATE TABLE gateways (
        id INTEGER PRIMARY KEY,
        plant_id INTEGER NOT NULL REFERENCES plants,
        name TEXT NOT NULL,
        registered INTEGER NOT NULL DEFAULT 0,
        alive_us INTEGER,
        session INTEGER NOT NULL DEFAULT 0,
        ended TEXT NOT NULL DEFAULT '',
        ended_us INTEGER,
        status TEXT,
        skew_us INTEGER,
        UNIQUE (plant_id, name))""",
    # The ids rise in the order of first appearance. `gateway`: the last that sent in this epoch.
    """CREATE TABLE epochs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        machine_id INTEGER NOT NULL REFERENCES machines,
        epoch TEXT NOT NULL,
        gateway TEXT NOT NULL,
        known INTEGER NOT NULL DEFAULT 0,
        UNIQUE (machine_id, epoch))""",
    # What telemetry in the referring form refers to: definition messages as they came (docs/wire.md).
    """CREATE TABLE definitions (
        machine_id INTEGER NOT NULL REFERENCES machines,
        ref BLOB NOT NULL,
        message BLOB NOT NULL,
        received_us INTEGER NOT NULL,
        PRIMARY KEY (machine_id, ref)) WITHOUT ROWID""",
    # An epoch belongs to one machine, so this is the idempotency key. `bytes`: of the message.
    """CREATE TABLE telemetry_events (
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        received_us INTEGER NOT NULL,
        readings INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (epoch_id, seq)) WITHOUT ROWID""",
    # Closed ranges that do not overlap. `dropped`: the gateway's reason; NULL: stored. See cloud/sequence.py.
    """CREATE TABLE sequence_ledger (
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        dropped TEXT,
        PRIMARY KEY (epoch_id, first)) WITHOUT ROWID""",
    # A tag whose type changes gets a new series. `device`, `unit`: of its newest reading.
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        machine_id INTEGER NOT NULL REFERENCES machines,
        device TEXT NOT NULL,
        tag TEXT NOT NULL,
        value_type TEXT NOT NULL,
        unit TEXT NOT NULL,
        UNIQUE (machine_id, tag, value_type))""",
    # `time`: microseconds since 1970 UTC. `value` has no declared type, so that nothing is converted; how each type
    # is kept says cloud/store/packing.py. No foreign key: it costs a fifth of the speed, and series are never deleted.
    """CREATE TABLE readings (
        series_id INTEGER NOT NULL,
        time INTEGER NOT NULL,
        value,
        quality INTEGER NOT NULL)""",
    # Time first: readings arrive in that order, and (series_id, time) takes them at a sixth of the speed.
    "CREATE INDEX readings_by_time ON readings (time, series_id)",
    """CREATE TABLE machine_state (
        series_id INTEGER PRIMARY KEY REFERENCES series,
        time INTEGER NOT NULL,
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        seq INTEGER NOT NULL,
        value,
        quality INTEGER NOT NULL,
        reason TEXT NOT NULL)""",
    # `digest`: of the payload; of a status nothing, because only the last one of each topic is kept.
    """CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        digest BLOB NOT NULL,
        reason TEXT NOT NULL,
        first_us INTEGER NOT NULL,
        last_us INTEGER NOT NULL,
        count INTEGER NOT NULL DEFAULT 1,
        state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'replayed')),
        payload BLOB NOT NULL,
        UNIQUE (topic, digest))""",
    # One row. `dead_letters_discarded`: how many were thrown away for room since the database was made.
    """CREATE TABLE receiver (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        listening_since_us INTEGER,
        now_us INTEGER,
        dead_letters_discarded INTEGER NOT NULL DEFAULT 0)""",
    "INSERT INTO receiver (id) VALUES (1)",
    """CREATE VIEW plants_named AS
        SELECT plants.id AS plant_id, tenants.name AS tenant, province, plants.name AS plant
        FROM plants JOIN tenants ON tenants.id = tenant_id""",
    """CREATE VIEW machines_named AS
        SELECT machines.id AS machine_id, tenant, province, plant, machines.name AS machine, state, gateway,
            last_event_us, batches, (SELECT count(DISTINCT tag) FROM series WHERE machine_id = machines.id) AS tags
        FROM machines JOIN plants_named USING (plant_id)""",
    # One row per tag: of several series of a tag, because its type has changed, the one with the newest reading.
    """CREATE VIEW latest_named AS
        SELECT machine_id, tenant, province, plant, machine, device, tag, value_type, unit, time AS time_us, value,
            quality AS status_code, reason
        FROM (
            SELECT *, row_number() OVER (
                PARTITION BY machine_id, tag ORDER BY time DESC, epoch_id DESC, seq DESC) AS place
            FROM machine_state JOIN series ON series.id = series_id)
        JOIN machines_named USING (machine_id)
        WHERE place = 1""",
    # For people with SQL or Grafana. To be quick, let WHERE name `time_us`: it is what the index knows.
    # SQLite divides towards zero, so that the fraction is taken off first, and made positive for times before 1970.
    """CREATE VIEW readings_named AS
        SELECT tenant, province, plant, machine, device, tag, value_type, unit,
            strftime('%Y-%m-%dT%H:%M:%S', (time - (time % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
                || printf('.%06dZ', (time % 1000000 + 1000000) % 1000000) AS time,
            time / 1e6 AS time_s, time AS time_us, value,
            CASE quality >> 30 WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END AS quality
        FROM readings JOIN series ON series.id = series_id JOIN machines_named USING (machine_id)""",
)

_SECOND = (
    # `historical`: it came marked as of a backlog.
    "ALTER TABLE telemetry_events ADD COLUMN historical INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX events_by_time ON telemetry_events (epoch_id, received_us)",
    # `given`, `sent`: as the gateway last said. `named_us`: when its status last named this epoch; equal to the
    # gateway's `status_us` where the last one did. `stored_us`, `readings_ever`: of what is or was stored.
    "ALTER TABLE epochs ADD COLUMN given INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE epochs ADD COLUMN sent INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE epochs ADD COLUMN named_us INTEGER",
    "ALTER TABLE epochs ADD COLUMN stored_us INTEGER",
    "ALTER TABLE epochs ADD COLUMN readings_ever INTEGER NOT NULL DEFAULT 0",
    """UPDATE epochs SET
        readings_ever = coalesce((SELECT sum(readings) FROM telemetry_events WHERE epoch_id = epochs.id), 0),
        stored_us = (SELECT max(received_us) FROM telemetry_events WHERE epoch_id = epochs.id)""",
    # `speakers`: what cloud/speakers.py calls Speakers, as JSON. `noted`, `noted_us`: the last presence in
    # gateway_events, and since when.
    "ALTER TABLE gateways ADD COLUMN status_us INTEGER",
    "ALTER TABLE gateways ADD COLUMN speakers TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE gateways ADD COLUMN noted TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE gateways ADD COLUMN noted_us INTEGER",
    """CREATE TABLE gateway_events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        gateway_id INTEGER NOT NULL REFERENCES gateways,
        at_us INTEGER NOT NULL,
        event TEXT NOT NULL,
        detail TEXT NOT NULL)""",
    "CREATE INDEX gateway_events_by_gateway ON gateway_events (gateway_id, id)",
    "ALTER TABLE dead_letters ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    "UPDATE dead_letters SET size = length(payload)",
    "CREATE INDEX dead_letters_by_time ON dead_letters (state, last_us, id, size)",
    # Readings up to `last_rowid` were stored by `received_us`: retention goes by that, whatever senders' clocks say.
    """CREATE TABLE readings_marks (
        last_rowid INTEGER PRIMARY KEY,
        received_us INTEGER NOT NULL)""",
)

_THIRD = (
    # Times during which a gateway's clock was vouched for by nobody, as its messages are marked (docs/wire.md).
    # `zero_us`: the true time at which the boot began, NULL until a synchronisation has told it, at `told_us`.
    # `first_us`, `last_us`: when messages of it were received. `corrected`: of its `batches`.
    """CREATE TABLE clock_spans (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        plant_id INTEGER NOT NULL REFERENCES plants,
        gateway TEXT NOT NULL,
        span BLOB NOT NULL,
        zero_us INTEGER,
        told_us INTEGER,
        first_us INTEGER,
        last_us INTEGER,
        batches INTEGER NOT NULL DEFAULT 0,
        corrected INTEGER NOT NULL DEFAULT 0,
        UNIQUE (plant_id, gateway, span))""",
    # `span_id`: NULL where the gateway vouches for the times. `shift_us`: by how much they were corrected.
    "ALTER TABLE telemetry_events ADD COLUMN span_id INTEGER REFERENCES clock_spans",
    "ALTER TABLE telemetry_events ADD COLUMN shift_us INTEGER",
    # Batches that wait for their correction: `zero_us` as their mark says, and the rows of their readings.
    """CREATE TABLE uncertain_batches (
        span_id INTEGER NOT NULL REFERENCES clock_spans,
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        seq INTEGER NOT NULL,
        zero_us INTEGER NOT NULL,
        first_rowid INTEGER NOT NULL,
        last_rowid INTEGER NOT NULL,
        PRIMARY KEY (span_id, epoch_id, seq)) WITHOUT ROWID""",
    # The latest values by such clocks. `since_us`: since the boot began; `live_us`: when the last was received live.
    """CREATE TABLE uncertain_state (
        span_id INTEGER NOT NULL REFERENCES clock_spans,
        series_id INTEGER NOT NULL REFERENCES series,
        since_us INTEGER NOT NULL,
        time INTEGER NOT NULL,
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        seq INTEGER NOT NULL,
        value,
        quality INTEGER NOT NULL,
        reason TEXT NOT NULL,
        live_us INTEGER,
        PRIMARY KEY (span_id, series_id)) WITHOUT ROWID""",
    # As before; and what came live by an uncertain clock stands where nothing with a certain time is newer than that.
    "DROP VIEW latest_named",
    """CREATE VIEW latest_named AS
        SELECT machine_id, tenant, province, plant, machine, device, tag, value_type, unit, time AS time_us, value,
            quality AS status_code, reason, time_certain
        FROM (
            SELECT *, row_number() OVER (
                PARTITION BY machine_id, tag ORDER BY place_us DESC, epoch_id DESC, seq DESC) AS place
            FROM (
                SELECT series_id, time, epoch_id, seq, value, quality, reason, 1 AS time_certain, time AS place_us
                FROM machine_state
                UNION ALL
                SELECT series_id, time, epoch_id, seq, value, quality, reason, 0, coalesce(live_us, -1)
                FROM uncertain_state)
            JOIN series ON series.id = series_id)
        JOIN machines_named USING (machine_id)
        WHERE place = 1""",
)

_FOURTH = (
    # The last number that the gateway still says it has given; below `given` where its outbox has lost its end.
    "ALTER TABLE epochs ADD COLUMN vouched INTEGER NOT NULL DEFAULT 0",
    "UPDATE epochs SET vouched = given",
)

MIGRATIONS = (_FIRST, _SECOND, _THIRD, _FOURTH)
