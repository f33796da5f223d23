//! What the server's control file says of the last stop.

use std::io;
use std::mem::offset_of;

use pgrx::pg_sys::{self, ControlFileData};
use pushy_core::counters_file::Life;

const PATH: &str = "global/pg_control";

// The system's identifier, versions, the state, the time of the last change and the last checkpoint.
const _: () = assert!(offset_of!(ControlFileData, checkPointCopy) == size_of::<Life>());

/// The beginning of the file, which differs from one stop to the next.
pub fn life() -> io::Result<Life> {
    let bytes = std::fs::read(PATH)?;
    let life = bytes.first_chunk::<{ size_of::<Life>() }>();
    life.copied()
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Whether the server was stopped with a checkpoint, and not at once: an immediate stop ends the postmaster without an
/// error, too.
pub fn is_clean(life: &Life) -> bool {
    const AT: usize = offset_of!(ControlFileData, state);
    let state = life[AT..].first_chunk::<4>().copied();
    state.map(u32::from_ne_bytes).is_some_and(|state| {
        state == pg_sys::DBState::DB_SHUTDOWNED
            || state == pg_sys::DBState::DB_SHUTDOWNED_IN_RECOVERY
    })
}
