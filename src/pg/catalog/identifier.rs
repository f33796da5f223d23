//! The server's own reading of an identifier: its parser, its folding, its limit.

use std::ffi::{c_char, CStr, CString};

use pgrx::{pg_sys, PgLogLevel};
use pushy_core::hidden;

use crate::errors::{Error, Result, SqlState};
use crate::pg::catch::caught;
use crate::pg::text;

/// Bytes of the longest name. The server compares its own NAMEDATALEN with ours when it loads the library.
pub const LIMIT: usize = pg_sys::NAMEDATALEN as usize - 1;

/// Refuses what nobody should be called: nothing, what is longer than the server's own names, control characters, which hide in
/// logs, terminals and files of lines, invisible ones, by which a name looks like another's, and blanks at either end, which no
/// view shows.
pub fn require_name(argument: &str, name: &str) -> crate::errors::Result<()> {
    let bytes = text::encode(name).len();
    let shown = if name.contains(hidden::is_hidden) {
        format!("\"{}\"", hidden::shown(name))
    } else if bytes == 0 || bytes > LIMIT {
        format!("a name of {bytes} bytes")
    } else if name.trim() != name {
        format!("\"{name}\"")
    } else {
        return Ok(());
    };
    Err(Error::out_of_range(
        argument,
        shown,
        &format!("1 to {LIMIT} bytes without control characters and invisible ones, and no blank at either end"),
    ))
}

/// The channel that `LISTEN <text>` listens on, the cut included; else why the server refuses it.
pub fn listened(text: &[u8]) -> Result<Vec<u8>> {
    const LISTEN: &[u8] = b"LISTEN ";
    let statement = CString::new([LISTEN, text].concat()).map_err(|_| not_an_identifier())?;
    let statements = parsed(&statement)?;
    // SAFETY: raw_parser answers a list of RawStmt, and the types of nodes are checked; the name is
    // NUL-terminated and copied.
    unsafe {
        if pg_sys::list_length(statements) != 1 {
            return Err(not_an_identifier());
        }
        let raw = pg_sys::list_nth(statements, 0).cast::<pg_sys::RawStmt>();
        // A length is only known of a statement that a semicolon ends.
        if (*raw).stmt_len != 0 || (*(*raw).stmt).type_ != pg_sys::NodeTag::T_ListenStmt {
            return Err(not_an_identifier());
        }
        let listen = (*raw).stmt.cast::<pg_sys::ListenStmt>();
        Ok(CStr::from_ptr((*listen).conditionname).to_bytes().to_vec())
    }
}

/// The parse trees of a text in the server's encoding, a list of RawStmt in the current memory context;
/// else why the parser refuses it. Nothing is looked up.
pub(in crate::pg) fn parsed(text: &CStr) -> Result<*mut pg_sys::List> {
    quietly(|| {
        // SAFETY: NUL-terminated; what the parser allocates goes with the current memory context, and it
        // holds nothing else that an error could leave behind.
        unsafe { parse(text.as_ptr()) }
    })
}

fn not_an_identifier() -> Error {
    Error::new(SqlState::SYNTAX_ERROR, "more than an identifier")
}

unsafe fn parse(statement: *const c_char) -> *mut pg_sys::List {
    pg_sys::raw_parser(statement, pg_sys::RawParseMode::RAW_PARSE_DEFAULT)
}

/// Runs `parse` and hands back its error; what it has to say below an error (that it cut the name) goes
/// neither to the client nor to the log. The levels are set as plain variables: as settings they could not
/// change in a parallel worker.
fn quietly<T>(parse: impl FnOnce() -> T) -> Result<T> {
    let set = |(client, log)| {
        // SAFETY: two integers of this process.
        unsafe {
            pg_sys::client_min_messages = client;
            pg_sys::log_min_messages = log;
        }
    };
    // SAFETY: as above.
    let levels = unsafe { (pg_sys::client_min_messages, pg_sys::log_min_messages) };
    let silent = PgLogLevel::ERROR as i32;
    set((silent, silent));
    let result = caught(parse);
    set(levels);
    result
}

/// An unquoted name as the server folds it: ASCII only where characters have several bytes, by the
/// locale where each is one. The length stays.
pub fn folded(name: &[u8]) -> Vec<u8> {
    // SAFETY: reads `len` bytes and answers as many in a palloc'd, NUL-terminated string; told neither to
    // warn nor to cut, it raises nothing.
    unsafe {
        let folded =
            pg_sys::downcase_identifier(name.as_ptr().cast(), name.len() as i32, false, false);
        let bytes = std::slice::from_raw_parts(folded.cast(), name.len()).to_vec();
        pg_sys::pfree(folded.cast());
        bytes
    }
}

/// A name as SQL wants it written: quoted where it must be, whatever quote_all_identifiers says.
pub fn quoted(name: &str) -> String {
    let Ok(name) = CString::new(text::encode_lossy(name)) else {
        return String::from("\"\"");
    };
    // SAFETY: reads a NUL-terminated name and answers it, or a palloc'd copy.
    quoting_little(|| unsafe { text::from_c(pg_sys::quote_identifier(name.as_ptr())) })
}

/// Runs `write` with quotes only where they must be: a text that is kept and compared must not follow
/// a setting of the session. `write` raises nothing.
pub fn quoting_little<T>(write: impl FnOnce() -> T) -> T {
    // SAFETY: a variable of this process; restored before anybody else reads it.
    unsafe {
        let quoting_all = pg_sys::quote_all_identifiers;
        pg_sys::quote_all_identifiers = false;
        let result = write();
        pg_sys::quote_all_identifiers = quoting_all;
        result
    }
}

/// A character in the server's encoding; an ERROR where it has none.
pub fn encoded(character: char) -> Vec<u8> {
    // MAX_UNICODE_EQUIVALENT_STRING in pg_wchar.h, and a NUL.
    let mut bytes = [0u8; 16 + 1];
    // SAFETY: writes a NUL-terminated string of at most that length.
    unsafe { pg_sys::pg_unicode_to_server(u32::from(character), bytes.as_mut_ptr()) };
    bytes.into_iter().take_while(|byte| *byte != 0).collect()
}

/// The setting of that name.
pub fn standard_conforming_strings() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::standard_conforming_strings }
}
