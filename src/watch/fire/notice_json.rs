//! The JSON of a notice, format 1. A reader ignores members that it does not know; `v` changes when one
//! that is there changes its meaning.
//!
//! | member | when | what |
//! | --- | --- | --- |
//! | `v` | always | 1 |
//! | `op` | always | `insert`, `update`, `delete` or `truncate` |
//! | `schema`, `table` | always | the watched table; for a partition, its root |
//! | `level` | per statement | `statement` |
//! | `key` | per row | the key's columns as they are now, of a deleted row as they were; null without a key and for `truncate` |
//! | `old_key` | an update changed the key | the key as it was |
//! | `new` | `row`, `diff` | the row now; in a `diff` of an update, the columns that changed |
//! | `old` | `row`, `diff` | the row before; in a `diff` of an update, the same columns |
//! | `count` | per statement | rows changed; null for `truncate` |
//! | `keys` | per statement | the `key` of each row, in order |
//! | `old_keys` | per statement, an update changed keys | each `old_key`, in order |
//! | `keys_complete` | per statement | false when some keys are not there: too many, no key, `truncate` |
//! | `notice`, `bytes` | a reference | the whole payload is `pushy.notice(notice)` and this long; no `new`, `old` |
//! | `error` | an expression or a conversion failed, or the payload would be too long | `{"sqlstate": …, "message": …}`; no `new`, `old` |
//! | `repeat` | by NOTIFY | how many equal notices of its transaction were emitted before it; not there when none was |
//! | `pid`, `xid` | always | the writer's process, its transaction as `pg_current_xact_id` has it |
//!
//! Payload `none` is empty, without an envelope. Values are as [`crate::pg::json`] has them.

use pushy_core::json;

use super::keys::{append, Keys};
use crate::errors::Error;
use crate::pg::columns::{Column, Columns, Tuple};
use crate::pg::json::list;
use crate::pg::text;
use crate::pg::trigger::Op;

/// What happened to a row.
#[derive(Clone, Copy)]
pub enum RowChange<'a> {
    Insert { new: Tuple<'a> },
    Update { old: Tuple<'a>, new: Tuple<'a> },
    Delete { old: Tuple<'a> },
    Truncate,
}

/// In the order of [`Op`].
const OPS: [Op; 4] = [Op::Insert, Op::Update, Op::Delete, Op::Truncate];

impl<'a> RowChange<'a> {
    pub fn op(&self) -> Op {
        match self {
            RowChange::Insert { .. } => Op::Insert,
            RowChange::Update { .. } => Op::Update,
            RowChange::Delete { .. } => Op::Delete,
            RowChange::Truncate => Op::Truncate,
        }
    }

    /// The row as it is after the change, or was before it is gone.
    fn last(&self) -> Option<&Tuple<'a>> {
        match self {
            RowChange::Insert { new } | RowChange::Update { new, .. } => Some(new),
            RowChange::Delete { old } => Some(old),
            RowChange::Truncate => None,
        }
    }
}

/// What a notice says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    None,
    Key,
    Row,
    Diff,
}

/// Who changed it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub pid: i32,
    pub xid: u64,
}

/// Payloads of one table: what all of them begin with, its columns and its key.
pub struct Shape {
    /// `{"v":1,"op":"insert","schema":"public","table":"t"`, per operation.
    beginnings: [Vec<u8>; 4],
    columns: Columns,
    /// Positions in `columns`, in the key's order.
    key: Vec<usize>,
}

impl Shape {
    /// `schema` and `table` are names in the server's encoding, those of the root for a partition;
    /// `columns` those of the relation that the rows are of, and `key` its attribute numbers there.
    pub fn new(schema: &[u8], table: &[u8], columns: Columns, key: &[i16]) -> Self {
        let beginnings = OPS.map(|op| {
            let mut out = format!(r#"{{"v":1,"op":"{}","schema":"#, op.as_str()).into_bytes();
            json::quoted(schema, &mut out);
            out.extend_from_slice(br#","table":"#);
            json::quoted(table, &mut out);
            out
        });
        let key = key
            .iter()
            .filter_map(|&number| columns.position(number))
            .collect();
        Self {
            beginnings,
            columns,
            key,
        }
    }

    /// The highest attribute that payloads of this kind read, for [`Tuple::of_slot`]. An error has the
    /// key in any case.
    pub fn reads_upto(&self, kind: PayloadKind) -> i16 {
        match kind {
            PayloadKind::None | PayloadKind::Key => {
                self.key_columns().map(|key| key.number).max().unwrap_or(0)
            }
            PayloadKind::Row | PayloadKind::Diff => self.columns.last(),
        }
    }

    /// Whether payloads of this kind run code of users, which may raise an error.
    pub fn can_fail(&self, kind: PayloadKind) -> bool {
        match kind {
            PayloadKind::None => false,
            PayloadKind::Key => self.key_columns().any(Column::can_fail),
            PayloadKind::Row | PayloadKind::Diff => self.columns.can_fail(),
        }
    }

    /// Whether a payload of this kind has a large value to write, with which the server may fail.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn has_large(&self, kind: PayloadKind, change: &RowChange) -> bool {
        let is_large = |row: &Tuple| self.columns.has_large(row);
        match (kind, change) {
            // A key fits into an index.
            (PayloadKind::None | PayloadKind::Key, _) | (_, RowChange::Truncate) => false,
            (_, RowChange::Insert { new: row } | RowChange::Delete { old: row }) => is_large(row),
            (_, RowChange::Update { old, new }) => is_large(old) || is_large(new),
        }
    }

    /// Whether payloads of this kind may hold JSON that the type jsonb refuses.
    pub fn may_be_no_jsonb(&self, kind: PayloadKind) -> bool {
        match kind {
            PayloadKind::None => false,
            PayloadKind::Key => self.key_columns().any(Column::may_be_no_jsonb),
            PayloadKind::Row | PayloadKind::Diff => self.columns.may_be_no_jsonb(),
        }
    }

    /// Appends the notice of one row, or of a TRUNCATE. After an ERROR inside, what was appended so far is
    /// to be dropped.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn row(&self, kind: PayloadKind, change: &RowChange, origin: Origin, out: &mut Vec<u8>) {
        if kind == PayloadKind::None {
            return;
        }
        self.begin(change.op(), out);
        self.write_key(change, out);
        match (kind, change) {
            (PayloadKind::None | PayloadKind::Key, _) | (_, RowChange::Truncate) => {}
            (_, RowChange::Insert { new }) => self.member("new", new, out),
            (_, RowChange::Delete { old }) => self.member("old", old, out),
            (PayloadKind::Row, RowChange::Update { old, new }) => {
                self.member("new", new, out);
                self.member("old", old, out);
            }
            (PayloadKind::Diff, RowChange::Update { old, new }) => {
                self.write_changed(old, new, out)
            }
        }
        end(origin, out);
    }

    /// Appends what stands for a payload that is too long: where to read it, and its length in bytes. `key`: the member,
    /// or [`NO_KEY`] when that is what is too long, and for a notice of a statement.
    pub fn reference(
        &self,
        op: Op,
        key: &[u8],
        origin: Origin,
        notice: i64,
        bytes: usize,
        out: &mut Vec<u8>,
    ) {
        self.begin(op, out);
        out.extend_from_slice(key);
        write_reference(notice, bytes, out);
        end(origin, out);
    }

    /// Appends the notice of a change whose payload failed; without its key where there is no `change`.
    pub fn error(
        &self,
        op: Op,
        change: Option<&RowChange>,
        origin: Origin,
        error: &Error,
        out: &mut Vec<u8>,
    ) {
        self.begin(op, out);
        match change {
            Some(change) => self.write_key(change, out),
            None => out.extend_from_slice(NO_KEY),
        }
        out.extend_from_slice(br#","error":{"sqlstate":"#);
        json::quoted(&error.sqlstate.0, out);
        out.extend_from_slice(br#","message":"#);
        // What the message quotes may be long; the whole of it is in the server's log and in the view.
        let message = text::encode_lossy(&error.message);
        json::quoted(text::cut(&message, ERROR_BYTES), out);
        out.push(b'}');
        end(origin, out);
    }

    /// Appends the notice of a statement whose rows were [added](Self::add) to `keys`.
    pub fn statement(&self, op: Op, keys: &Keys, origin: Origin, out: &mut Vec<u8>) {
        self.begin(op, out);
        out.extend_from_slice(br#","level":"statement","count":"#);
        match op {
            Op::Truncate => out.extend_from_slice(b"null"),
            _ => json::integer(keys.count, out),
        }
        out.extend_from_slice(br#","keys":["#);
        out.extend_from_slice(&keys.new);
        out.push(b']');
        if !keys.old.is_empty() {
            out.extend_from_slice(br#","old_keys":["#);
            out.extend_from_slice(&keys.old);
            out.push(b']');
        }
        if keys.is_cut || op == Op::Truncate {
            out.extend_from_slice(br#","keys_complete":false"#);
        }
        end(origin, out);
    }

    /// Room for keys in a notice of a statement of at most `limit` bytes.
    pub fn keys_limit(&self, limit: usize) -> usize {
        limit.saturating_sub(self.beginnings[0].len() + STATEMENT_BYTES)
    }

    /// Counts a row, and keeps its key while there is room; with room for nothing it is not even written. After an
    /// ERROR inside, cut the keys to what they were.
    pub fn add(&self, change: &RowChange, keys: &mut Keys) {
        keys.count += 1;
        let Some(last) = change.last().filter(|_| !self.key.is_empty()) else {
            keys.is_cut = true;
            return;
        };
        if keys.is_cut || keys.limit == 0 {
            keys.is_cut = true;
            return;
        }
        let before = keys.length();
        append(&mut keys.new, |out| self.write_key_object(last, out));
        if let Some(old) = self.old_key(change) {
            append(&mut keys.old, |out| self.write_key_object(old, out));
        }
        if keys.new.len() + keys.old.len() > keys.limit {
            keys.cut(before);
        }
    }

    fn begin(&self, op: Op, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.beginnings[op as usize]);
    }

    fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&position| self.columns.get(position))
    }

    /// The row before an update that changed its key.
    fn old_key<'c, 'a>(&self, change: &'c RowChange<'a>) -> Option<&'c Tuple<'a>> {
        match change {
            RowChange::Update { old, new } => self
                .key_columns()
                .any(|column| !Tuple::is_same(old, new, column))
                .then_some(old),
            _ => None,
        }
    }

    /// Appends the key as a member, and the one before.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn write_key(&self, change: &RowChange, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","key":"#);
        match change.last().filter(|_| !self.key.is_empty()) {
            Some(row) => self.write_key_object(row, out),
            None => out.extend_from_slice(b"null"),
        }
        if let Some(old) = self.old_key(change) {
            out.extend_from_slice(br#","old_key":"#);
            self.write_key_object(old, out);
        }
    }

    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    fn write_key_object(&self, row: &Tuple, out: &mut Vec<u8>) {
        list(b"{}", self.key_columns(), out, |column, out| {
            column.write(row, out);
        });
    }

    fn member(&self, name: &str, row: &Tuple, out: &mut Vec<u8>) {
        begin_member(name, out);
        self.columns.write(row, out);
    }

    fn write_changed(&self, old: &Tuple, new: &Tuple, out: &mut Vec<u8>) {
        let changed: Vec<&Column> = self
            .columns
            .iter()
            .filter(|column| !Tuple::is_same(old, new, column))
            .collect();
        for (name, row) in [("new", new), ("old", old)] {
            begin_member(name, out);
            list(b"{}", &changed, out, |column, out| column.write(row, out));
        }
    }
}

/// The member of a change without a key.
pub const NO_KEY: &[u8] = br#","key":null"#;

/// Bytes of an error's message in a notice.
const ERROR_BYTES: usize = 1_000;

/// What a notice of a statement has besides its beginning and its keys, at most: the members' names,
/// and three numbers.
const STATEMENT_BYTES: usize = 160;

fn begin_member(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_reference(notice: i64, bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","notice":"#);
    json::int8(notice, out);
    out.extend_from_slice(br#","bytes":"#);
    json::integer(bytes, out);
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn end(origin: Origin, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","pid":"#);
    json::integer(origin.pid, out);
    out.extend_from_slice(br#","xid":"#);
    json::int8(origin.xid as i64, out);
    out.push(b'}');
}
