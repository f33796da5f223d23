//! The script of this database, which CREATE EXTENSION or ALTER EXTENSION UPDATE ran, and whether this library works with it.

use std::hint::black_box;

use pgrx::pg_sys::{self, Oid};
use pushy_core::version::{fit, Fit};

use crate::errors::{Error, SqlState};
use crate::pg::text;

/// Versions of the script before this one whose tables and functions this library works with. A version goes out of this list
/// as soon as an update script changes a table, or a value in it, that src/ reads or writes.
const OLDER: &str = "";

const ROOM: usize = 80;
const HEAD: &str = "pushy works with scripts [";

/// All of them, its own first, parted by blanks. It is text in the library's file, because a test makes the library of a next
/// version by writing another list into a copy.
static WORKS_WITH: [u8; ROOM] = {
    let parts = [HEAD, env!("CARGO_PKG_VERSION"), OLDER];
    let mut text = [b' '; ROOM];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            text[at] = bytes[byte];
            (at, byte) = (at + 1, byte + 1);
        }
        part += 1;
    }
    text[ROOM - 1] = b']';
    text
};

fn works_with() -> Vec<&'static str> {
    // What the file holds, not what the compiler knows of it.
    let text: &'static [u8; ROOM] = black_box(&WORKS_WITH);
    let list = &text[HEAD.len()..ROOM - 1];
    std::str::from_utf8(list)
        .expect("versions are ASCII")
        .split_whitespace()
        .collect()
}

/// The version of this library.
pub fn library() -> &'static str {
    works_with().first().expect("its own")
}

/// The version of this database's script; None without the extension.
#[cold]
pub fn installed() -> Option<String> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: a scan of pg_extension by its index on the name, inside a transaction; an abort closes what an ERROR leaves open. The
    // arrays have room for all columns of the tuple, which lives until the scan ends.
    unsafe {
        let found = {
            let catalog = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(
                &mut key,
                pg_sys::Anum_pg_extension_extname as i16,
                pg_sys::BTEqualStrategyNumber as u16,
                Oid::from(pg_sys::F_NAMEEQ),
                pg_sys::Datum::from(c"pushy".as_ptr()),
            );
            let index = Oid::from(pg_sys::ExtensionNameIndexId);
            let none = std::ptr::null_mut();
            let scan = pg_sys::systable_beginscan(catalog, index, true, none, 1, &mut key);
            let tuple = pg_sys::systable_getnext(scan);
            let version = (!tuple.is_null()).then(|| {
                const COLUMNS: usize = pg_sys::Natts_pg_extension as usize;
                let mut values = [pg_sys::Datum::from(0usize); COLUMNS];
                let mut nulls = [false; COLUMNS];
                let desc = (*catalog).rd_att;
                pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
                let at = pg_sys::Anum_pg_extension_extversion as usize - 1;
                pg_sys::text_to_cstring(values[at].cast_mut_ptr())
            });
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, lock);
            version
        };
        found.map(|version| {
            let copy = text::from_c(version);
            pg_sys::pfree(version.cast());
            copy
        })
    }
}

/// Whether a script of an extension runs: CREATE EXTENSION or ALTER EXTENSION UPDATE.
pub fn is_running() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::creating_extension }
}

/// How this database's script stands to this library; a database without the extension has nothing that does not fit.
#[cold]
pub fn stands() -> Fit {
    installed().map_or(Fit::Works, |script| fit(&script, &works_with()))
}

/// What to do where the two do not fit.
pub fn way_out(fit: Fit) -> Option<&'static str> {
    match fit {
        Fit::Works => None,
        Fit::ScriptIsOlder => Some("ALTER EXTENSION pushy UPDATE"),
        Fit::LibraryIsOlder => Some("restart the server"),
    }
}

/// The error of a library that does not work with this database's script.
#[cold]
pub fn refused(fit: Fit) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "library {} of pushy does not work with script {} of this database",
            library(),
            installed().unwrap_or_default()
        ),
    )
    .hint(match fit {
        Fit::LibraryIsOlder => "Restart the server, which goes on with the library that it was started with. Then run ALTER EXTENSION pushy UPDATE, if that was refused.",
        _ => "The extension's owner runs: ALTER EXTENSION pushy UPDATE",
    })
}
