-- What events are selected by. Small rows: a scan reads no bodies.
CREATE TABLE event (
  n            INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL UNIQUE, -- ULID: its order is the order of pages
  time         INTEGER NOT NULL,        -- ns since 1970
  kind         TEXT    NOT NULL,
  severity     TEXT    NOT NULL,
  namespace    TEXT    NOT NULL,
  pod          TEXT    NOT NULL,
  container    TEXT    NOT NULL,
  container_id TEXT    NOT NULL,
  unit         TEXT    NOT NULL,
  comm         TEXT    NOT NULL,
  pid          INTEGER NOT NULL
) STRICT;
CREATE INDEX event_time ON event (time, kind); -- timeline, retention
CREATE INDEX event_kind ON event (kind, id);
CREATE INDEX event_container ON event (container, id);
CREATE INDEX event_container_id ON event (container_id);
CREATE INDEX event_pid ON event (pid, id);

-- The document as the API returns it.
CREATE TABLE doc (n INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;

-- The index of all words; it does not keep the text. A mark like "_" parts
-- words, so "openat" finds do_sys_openat2 and "do_sys_openat2" only that.
CREATE VIRTUAL TABLE text USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'unicode61');

CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('skew', 0)
